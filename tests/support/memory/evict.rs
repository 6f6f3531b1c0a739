//! Evictions: `POST` to the subresource `eviction` of a pod, with the budgets' say.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    budgets,
    delete::{self, Options},
    failure::Failure,
    request::Request,
    store::{Key, Store},
    write::Reply,
};

/// More evicted pods than this a budget does not remember.
const MOST_DISRUPTED: usize = 2000;

pub(super) fn evict(store: &mut Store, request: &Request, body: &[u8]) -> Result<Reply, Failure> {
    let eviction: Value = serde_json::from_slice(body).map_err(|error| Failure::bad_request(error.to_string()))?;
    let named = eviction["metadata"]["name"].as_str().unwrap_or(&request.call.name);
    if named != request.call.name {
        return Err(Failure::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut options = Options::read(request, &eviction["deleteOptions"]);
    let (kind, key) = (request.kind, request.key());
    let pod = store.get(&key).ok_or_else(|| Failure::not_found(kind, &key.name))?;
    if !is_beyond_budgets(&pod) {
        let guards = budgets::guarding(store, &pod);
        match guards.as_slice() {
            [] => {}
            [(budget_key, budget)] => {
                if !lets_unhealthy_go(&pod, budget) {
                    take(store, budget_key, budget, &key.name, options.dry)?;
                }
            }
            _ => return Err(Failure::several_budgets()),
        }
    }
    if !options.dry {
        options.check(kind, &pod)?;
        mark(store, &key, &pod);
        // The mark is a new version, and it is our own.
        options.version = None;
    }
    delete::remove(store, kind, &key, &options)?;
    let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(Reply { code: 201, object: Arc::new(done) })
}

/// Whether no budget is asked: a pod that does not work yet, or no more.
fn is_beyond_budgets(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"))
        || !pod["metadata"]["deletionTimestamp"].is_null()
}

/// Whether the pod is not Ready, and the budget does not hold on to it.
fn lets_unhealthy_go(pod: &Value, budget: &Value) -> bool {
    let number = |name: &str| budget["status"][name].as_i64().unwrap_or_default();
    let is_met = number("currentHealthy") >= number("desiredHealthy") && number("desiredHealthy") > 0;
    !budgets::is_ready(pod) && (budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" || is_met)
}

/// Takes one disruption from the budget, or says why there is none.
fn take(store: &mut Store, key: &Key, budget: &Value, pod: &str, dry: bool) -> Result<(), Failure> {
    let name = &key.name;
    let status = &budget["status"];
    let number = |name: &str| status[name].as_i64().unwrap_or_default();
    if number("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or_default() {
        return Err(Failure::budget(
            &format!("The disruption budget {name} is still being processed by the server."),
            10,
        ));
    }
    let is_full = status["disruptedPods"].as_object().is_some_and(|pods| pods.len() > MOST_DISRUPTED);
    if number("disruptionsAllowed") < 0 || is_full {
        let why = if is_full {
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        } else {
            "pdb disruptions allowed is negative"
        };
        return Err(Failure::forbidden_budget(name, why));
    }
    if number("disruptionsAllowed") == 0 {
        return Err(Failure::budget(&refusal(name, status), 0));
    }
    if dry {
        return Ok(());
    }
    let mut updated = budget.clone();
    let left = number("disruptionsAllowed") - 1;
    updated["status"]["disruptionsAllowed"] = json!(left);
    updated["status"]["disruptedPods"][pod] = store.now();
    if left == 0 {
        budgets::set_condition(&mut updated["status"], store.now());
    }
    store.put(key.clone(), updated);
    Ok(())
}

fn refusal(name: &str, status: &Value) -> String {
    let (healthy, desired) = (&status["currentHealthy"], &status["desiredHealthy"]);
    let condition = &status["conditions"][0];
    let (reason, message) = (condition["reason"].as_str(), condition["message"].as_str().unwrap_or_default());
    let begin = format!("The disruption budget {name}");
    if reason == Some("SyncFailed") && !message.is_empty() {
        format!("{begin} does not allow evicting pods currently because it failed sync: {message}")
    } else if healthy.as_i64() <= desired.as_i64() {
        format!("{begin} needs {desired} healthy pods and has {healthy} currently")
    } else {
        format!("{begin} does not allow evicting pods currently")
    }
}

/// Writes into the pod's status why it goes.
fn mark(store: &mut Store, key: &Key, pod: &Value) {
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastTransitionTime": store.now(),
    });
    let mut marked = pod.clone();
    let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    if conditions.iter().any(|other| other["type"] == condition["type"] && other["status"] == condition["status"]) {
        return;
    }
    conditions.retain(|other| other["type"] != condition["type"]);
    conditions.push(condition);
    marked["status"]["conditions"] = Value::Array(conditions);
    store.put(key.clone(), marked);
}
