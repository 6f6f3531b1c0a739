//! What the API server says when it says no: a Status.

use serde_json::{Value, json};

use super::kinds::Kind;

/// A refusal, as the Status that is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The HTTP code.
    pub code: u16,
    /// One word, such as `Conflict`; empty where the API server gives none.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// What it is about; `null` where the API server does not say.
    pub details: Value,
}

impl Failure {
    /// The body of the answer.
    pub(super) fn status(&self) -> Value {
        let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"});
        status["message"] = json!(self.message);
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status["code"] = json!(self.code);
        status
    }

    /// How many seconds to wait, where the answer says so.
    pub(super) fn retry_after(&self) -> Option<u64> {
        self.details["retryAfterSeconds"].as_u64()
    }

    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Value::Null }
    }

    fn about(mut self, kind: &Kind, name: &str) -> Self {
        self.details = details(kind.group, kind.plural, name);
        self
    }

    pub(super) fn with_causes(mut self, causes: Value) -> Self {
        self.details["causes"] = causes;
        self
    }

    pub(super) fn not_found(kind: &Kind, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} {name:?} not found", kind.resource())).about(kind, name)
    }

    pub(super) fn not_found_namespace(name: &str) -> Self {
        let mut failure = Self::new(404, "NotFound", format!("namespaces {name:?} not found"));
        failure.details = details("", "namespaces", name);
        failure
    }

    /// The path leads nowhere.
    pub(super) fn no_such_path() -> Self {
        let mut failure = Self::new(404, "NotFound", "the server could not find the requested resource");
        failure.details = json!({});
        failure
    }

    pub(super) fn exists(kind: &Kind, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} {name:?} already exists", kind.resource())).about(kind, name)
    }

    pub(super) fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.resource());
        Self::new(409, "Conflict", message).about(kind, name)
    }

    /// A conflict with a precondition of a delete, which names the kind and not the resource.
    pub(super) fn conflict_of_kind(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.qualified_kind());
        let mut failure = Self::new(409, "Conflict", message);
        failure.details = details(kind.group, kind.name, name);
        failure
    }

    /// The resourceVersion that the write rests on is not the object's any more.
    pub(super) fn modified(kind: &Kind, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(kind, name, why)
    }

    /// Something in the object is not allowed: `field` with the value `was`.
    pub(super) fn invalid(kind: &Kind, name: &str, field: &str, cause: &str, why: &str) -> Self {
        let message = format!("{} {name:?} is invalid: {field}: {why}", kind.qualified_kind());
        let mut failure = Self::new(422, "Invalid", message);
        failure.details = details(kind.group, kind.name, name);
        failure.with_causes(json!([{"reason": cause, "message": why, "field": field}]))
    }

    /// Parameters of a list or a watch that do not go together.
    pub(super) fn invalid_options(field: &str, cause: &str, why: &str) -> Self {
        let message = format!("ListOptions.meta.k8s.io \"\" is invalid: {field}: {why}");
        let mut failure = Self::new(422, "Invalid", message);
        failure.details = json!({"group": "meta.k8s.io", "kind": "ListOptions"});
        failure.with_causes(json!([{"reason": cause, "message": why, "field": field}]))
    }

    /// A replace without a resourceVersion, where one is needed. In such an answer the kind is the resource.
    pub(super) fn version_needed(kind: &Kind, name: &str) -> Self {
        let (field, why) = ("metadata.resourceVersion", "Invalid value: 0: must be specified for an update");
        let message = format!("{} {name:?} is invalid: {field}: {why}", kind.resource());
        let failure = Self::new(422, "Invalid", message).about(kind, name);
        failure.with_causes(json!([{"reason": "FieldValueInvalid", "message": why, "field": field}]))
    }

    /// Another UID in a patch; the API server checks that twice, and says it once.
    pub(super) fn other_uid(kind: &Kind, name: &str, uid: &Value) -> Self {
        let (field, reason, why) =
            ("metadata.uid", "FieldValueInvalid", format!("Invalid value: {uid}: field is immutable"));
        let cause = json!({"reason": reason, "message": why, "field": field});
        Self::invalid(kind, name, field, reason, &why).with_causes(json!([cause, cause]))
    }

    /// A JSON patch that cannot be applied.
    pub(super) fn unpatchable(why: &str) -> Self {
        let mut failure = Self::new(422, "Invalid", "the server rejected our request due to an error in our request");
        failure.details = json!({"causes": [{"message": why}]});
        failure
    }

    /// What a patch makes is not of the kind any more.
    pub(super) fn undecodable_patch(why: &str) -> Self {
        let mut failure = Self::new(422, "Invalid", format!(" \"\" is invalid: patch: Invalid value: {why}"));
        failure.details = json!({"causes": [{"reason": "FieldValueInvalid", "message": why, "field": "patch"}]});
        failure
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(super) fn method_not_allowed() -> Self {
        let mut failure =
            Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
        failure.details = json!({});
        failure
    }

    pub(super) fn unsupported_media_type() -> Self {
        let mut failure = Self::new(415, "UnsupportedMediaType", "415: Unsupported Media Type");
        failure.details = json!({});
        failure
    }

    /// The version or the continue token is older than what is remembered.
    pub(super) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// A version that is no number. The API server blames itself for that.
    pub(super) fn no_version(text: &str) -> Self {
        let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
        Self::new(500, "", format!("resourceVersion: Invalid value: {text:?}: {why}"))
    }

    /// The version is newer than the newest.
    pub(super) fn too_large_version(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut failure = Self::new(504, "Timeout", message);
        failure.details = json!({"retryAfterSeconds": 1, "causes": [
            {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"},
        ]});
        failure
    }

    /// A budget refuses an eviction; `wait` is in seconds.
    pub(super) fn budget(why: &str, wait: u64) -> Self {
        let mut failure = Self::throttled("Cannot evict pod as it would violate the pod's disruption budget.", wait);
        failure.details["causes"] = json!([{"reason": "DisruptionBudget", "message": why}]);
        failure
    }

    /// Later, please; `wait` is in seconds, 0 for no advice.
    pub(super) fn throttled(message: &str, wait: u64) -> Self {
        let mut failure = Self::new(429, "TooManyRequests", message);
        failure.details = if wait == 0 { json!({}) } else { json!({"retryAfterSeconds": wait}) };
        failure
    }

    /// A budget whose status cannot be right.
    pub(super) fn forbidden_budget(name: &str, why: &str) -> Self {
        let message = format!("poddisruptionbudget.policy {name:?} is forbidden: {why}");
        let mut failure = Self::new(403, "Forbidden", message);
        failure.details = details("policy", "poddisruptionbudget", name);
        failure
    }

    /// Two budgets guard one pod.
    pub(super) fn several_budgets() -> Self {
        let message =
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        Self::new(500, "", message)
    }

    /// A refusal as weather makes it.
    pub(super) fn made_up(code: u16) -> Self {
        match code {
            429 => Self::throttled("too many requests, please try again later", 1),
            500 => Self::new(500, "InternalError", "Internal error occurred: on purpose"),
            503 => Self::new(503, "ServiceUnavailable", "the server is currently unable to handle the request"),
            504 => Self::new(504, "Timeout", "Timeout: request did not complete within the allotted timeout"),
            code => Self::new(code, "", "on purpose"),
        }
    }
}

fn details(group: &str, kind: &str, name: &str) -> Value {
    let mut details = json!({"kind": kind});
    if !name.is_empty() {
        details["name"] = json!(name);
    }
    if !group.is_empty() {
        details["group"] = json!(group);
    }
    details
}
