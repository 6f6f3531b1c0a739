//! One Node as the protocol sees it: the single mapping from the Kubernetes object to typed values.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;

use crate::annotations as key;
use crate::ids::{BootId, GrantId, parse_version};
use crate::values::{Answer, Field, InProgress, LastReboot, Permission, Waiting, printable, read_json, read_words};

/// The label of a node that runs the control plane, whatever its value is.
pub(crate) const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// Who owns `spec.unschedulable`, by the Node's managedFields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CordonOwner {
    /// The agent and nobody else.
    Agent,
    /// Somebody else, or somebody else as well.
    Other,
    /// The API server does not know: nobody, or `ancient-changes` (it merges managers when there are more than ten).
    Untracked,
}

/// A Node as read at one resourceVersion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`: a Node of the same name with another UID is another Node.
    pub uid: String,
    /// `metadata.resourceVersion`: every write that is decided on this view carries it.
    pub resource_version: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `status.nodeInfo.bootID`, when it parses.
    pub boot: Option<BootId>,
    /// Whether condition Ready is True; False and Unknown are both "no".
    pub ready: bool,
    /// Since when it is not Ready, as its kubelet or the node controller says; of use to people only.
    pub not_ready_since: Option<Timestamp>,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// Who placed the cordon, if there is one.
    pub cordon_owner: CordonOwner,
    /// `reboot-needed`: why the node asks.
    pub needed: Option<String>,
    /// `reboot-request`.
    pub request: Field<Answer>,
    /// `reboot`.
    pub permission: Field<Permission>,
    /// `reboot-in-progress`.
    pub in_progress: Field<InProgress>,
    /// `reboot-waiting`.
    pub waiting: Field<Waiting>,
    /// `reboot-status`.
    pub status: Option<String>,
    /// `reboot-paused`: why.
    pub paused: Option<String>,
    /// `last-reboot`.
    pub last_reboot: Field<LastReboot>,
    /// `reboot-fence`.
    pub fence: Option<String>,
}

impl NodeView {
    /// Whether it shows a later state of the Node than the other, by their resourceVersions.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        parse_version(&self.resource_version) > parse_version(&other.resource_version)
    }

    /// Whether it runs the control plane.
    pub fn is_control_plane(&self) -> bool {
        self.labels.contains_key(CONTROL_PLANE)
    }

    /// The grant that its agent did not take up in time: its request went with it, and the ask still stands unanswered.
    pub fn lapsed(&self) -> Option<GrantId> {
        self.waiting.get()?.lapsed.filter(|_| self.needed.is_some() && self.request.is_absent())
    }

    /// The boot under which its agent asked: by the answer, or by the grant that lapsed after it.
    pub fn asked_under(&self) -> Option<BootId> {
        let answered = self.compatible_request().map(|request| request.boot);
        answered.or_else(|| self.lapsed().map(|id| id.boot))
    }

    /// The agent's answer, when it is of this protocol.
    pub fn compatible_request(&self) -> Option<&crate::values::Request> {
        self.request.get().and_then(Answer::compatible)
    }

    /// The grant that stands on the Node, of whatever boot.
    pub fn granted(&self) -> Option<GrantId> {
        match self.permission.get() {
            Some(Permission::Granted(id)) => Some(*id),
            Some(Permission::Now) | None => None,
        }
    }

    /// Whether a person forces the reboot.
    pub fn is_forced(&self) -> bool {
        matches!(self.permission.get(), Some(Permission::Now))
    }

    /// Why the node asks, as `last-reboot` carries it.
    pub(crate) fn why(&self) -> Option<String> {
        self.needed.as_deref().map(printable)
    }

    /// Whether the cordon on the node was placed by the agent, so that the agent may remove it (S4).
    ///
    /// managedFields decide, because they survive the loss of our annotations and pass to a person who cordons anew.
    /// Where the API server does not know the owner, `reboot-in-progress` says what the agent did.
    pub fn cordon_is_ours(&self) -> bool {
        self.unschedulable
            && match self.cordon_owner {
                CordonOwner::Agent => true,
                CordonOwner::Other => false,
                CordonOwner::Untracked => self.in_progress.get().is_some_and(|progress| progress.cordoned),
            }
    }

    /// Every annotation of this Node that is malformed: its key and what is wrong with it.
    pub fn malformed(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            (key::REQUEST, self.request.malformed()),
            (key::REBOOT, self.permission.malformed()),
            (key::IN_PROGRESS, self.in_progress.malformed()),
            (key::WAITING, self.waiting.malformed()),
            (key::LAST_REBOOT, self.last_reboot.malformed()),
        ]
        .into_iter()
        .filter_map(|(key, why)| Some((key, why?)))
    }
}

impl From<&Node> for NodeView {
    fn from(node: &Node) -> Self {
        let annotation = |key: &str| node.metadata.annotations.as_ref()?.get(key).map(String::as_str);
        let status = node.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        let is_ready = ready.is_some_and(|condition| condition.status == "True");
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            uid: node.metadata.uid.clone().unwrap_or_default(),
            resource_version: node.metadata.resource_version.clone().unwrap_or_default(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            boot: status.and_then(|status| status.node_info.as_ref()?.boot_id.parse().ok()),
            ready: is_ready,
            not_ready_since: ready
                .filter(|_| !is_ready)
                .and_then(|condition| Some(condition.last_transition_time.as_ref()?.0)),
            unschedulable: node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false),
            cordon_owner: cordon_owner(node),
            needed: read_words(annotation(key::NEEDED)),
            request: Answer::read(annotation(key::REQUEST)),
            permission: Permission::read(annotation(key::REBOOT)),
            in_progress: read_json(annotation(key::IN_PROGRESS)),
            waiting: read_json(annotation(key::WAITING)),
            status: annotation(key::STATUS).map(str::to_owned),
            paused: read_words(annotation(key::PAUSED)),
            last_reboot: read_json(annotation(key::LAST_REBOOT)),
            fence: annotation(key::FENCE).map(str::to_owned),
        }
    }
}

/// The manager that the API server makes up when more than ten managers own fields of an object.
const ANCIENT: &str = "ancient-changes";

fn cordon_owner(node: &Node) -> CordonOwner {
    let owners = node.metadata.managed_fields.iter().flatten().filter(|entry| {
        entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:unschedulable").is_some())
    });
    let mut known =
        owners.filter_map(|entry| entry.manager.as_deref()).filter(|manager| *manager != ANCIENT).peekable();
    if known.peek().is_none() {
        CordonOwner::Untracked
    } else if known.all(|manager| manager == key::AGENT_MANAGER) {
        CordonOwner::Agent
    } else {
        CordonOwner::Other
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(managers: &[&str], cordoned_by_us: Option<bool>, ours: bool) {
        let fields = json!({ "f:spec": { "f:unschedulable": {} } });
        let entries: Vec<_> = managers.iter().map(|name| json!({ "manager": name, "fieldsV1": fields })).collect();
        let progress = cordoned_by_us.map(|cordoned| {
            json!({ "phase": "draining", "id": "0f7f3d1c-1c3a-4a52-9d3b-2f6a3c5e7b90.7",
                    "since": "2026-01-01T00:00:00Z", "cordoned": cordoned })
            .to_string()
        });
        let node: Node = serde_json::from_value(json!({
            "metadata": { "managedFields": entries, "annotations": { key::IN_PROGRESS: progress.unwrap_or_default() } },
            "spec": { "unschedulable": true },
        }))
        .unwrap();
        assert_eq!(NodeView::from(&node).cordon_is_ours(), ours, "{managers:?} {cordoned_by_us:?}");
    }

    #[test]
    fn the_cordon_is_ours_by_the_managed_fields_or_by_our_word_where_they_do_not_know() {
        check(&["reboot-agent"], None, true);
        check(&["reboot-agent"], Some(false), true);
        check(&["kubectl-cordon"], Some(true), false);
        check(&["reboot-agent", "kubectl-cordon"], Some(true), false);
        check(&["ancient-changes"], Some(true), true);
        check(&["ancient-changes"], Some(false), false);
        check(&["ancient-changes"], None, false);
        check(&[], Some(true), true);
        check(&[], None, false);
    }

    #[track_caller]
    fn check_reason(key: &str, value: &str, words: &str) {
        let node: Node = serde_json::from_value(json!({ "metadata": { "annotations": { key: value } } })).unwrap();
        let view = NodeView::from(&node);
        let (malformed, why) = view.malformed().next().unwrap();
        assert_eq!(malformed, key);
        assert!(why.contains(words), "{why:?} does not contain {words:?}");
        assert!(why.len() < 1000 && !why.contains(char::is_control), "{} bytes: {why:?}", why.len());
    }

    #[test]
    fn the_reason_why_a_value_is_malformed_is_short_and_printable_whatever_the_value_is() {
        let phase = |phase: &str| format!(r#"{{"phase":"{phase}"}}"#);
        check_reason(key::IN_PROGRESS, &phase("driving"), "unknown variant `driving`, expected `draining`");
        check_reason(key::IN_PROGRESS, &phase("a\\u0007\\u001b[2Jb"), "unknown variant `a\u{fffd}\u{fffd}[2Jb`");
        check_reason(key::IN_PROGRESS, &phase(&"x".repeat(200_000)), "unknown variant `xxx");
        check_reason(key::REQUEST, &phase(&"x".repeat(200_000)), "missing field `protocol`");
        check_reason(key::REBOOT, &"x".repeat(200_000), "is neither a grant id nor `now`");
    }

    #[test]
    fn an_empty_node_is_neither_ready_nor_of_a_known_boot() {
        let view = NodeView::from(&Node::default());
        assert_eq!((view.ready, view.boot, view.needed.is_some()), (false, None, false));
    }
}
