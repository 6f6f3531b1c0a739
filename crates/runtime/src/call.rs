//! One call to the API server: bounded in time, and its outcome sorted by what is known afterwards.

use std::{
    error::Error,
    fmt::{self, Display, Formatter},
    time::Duration,
};

use kube::core::Status;
use tokio::time::timeout;

/// How long one call may take; after that its outcome is unknown.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a call did not succeed, by what the caller may conclude from it.
///
/// All but [`CallError::Unknown`] are the API server's own answer: nothing was written.
#[derive(Debug)]
pub enum CallError {
    /// 404: the API server says that the object does not exist.
    Gone(Box<Answer>),
    /// 409: the object changed since it was read, or exists already. Read and decide again.
    Conflict(Box<Answer>),
    /// 429: not now. A `PodDisruptionBudget` refuses an eviction this way.
    Throttled {
        /// The pause that the server asks for, where it names one.
        retry_after: Option<Duration>,
        /// The server's words.
        answer: Box<Answer>,
    },
    /// Any other definite no (4xx): the same request will not succeed.
    Refused(Box<Answer>),
    /// No answer, a broken one, a 5xx, or an answer that is not the API server's: a write may or may not have happened.
    Unknown(String),
}

/// What the API server answered, and to what.
#[derive(Debug)]
pub struct Answer {
    /// The call, in continuous form: `patching the node`.
    pub what: String,
    /// The whole of the answer.
    pub status: Status,
}

/// Awaits one call, for at most [`TIMEOUT`]. `what` names it in continuous form.
pub async fn call<T>(what: &str, request: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
    call_within(TIMEOUT, what, request).await
}

/// [`call`] with a limit of the caller's own.
pub async fn call_within<T>(
    limit: Duration,
    what: &str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, CallError> {
    match timeout(limit, request).await {
        Ok(outcome) => outcome.map_err(|error| CallError::sort(what, error)),
        Err(_) => Err(CallError::Unknown(format!("{what}: no answer within {limit:?}"))),
    }
}

/// An error with its causes, each said once: kube's own words repeat some and leave others out, such as why a connection
/// was not made.
pub fn explain(error: &(dyn Error + 'static)) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !told.contains(&words) {
            told = format!("{told}: {words}");
        }
        cause = error.source();
    }
    told
}

impl CallError {
    /// The API server's answer, or none where the outcome is unknown.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Gone(answer) | Self::Conflict(answer) | Self::Refused(answer) | Self::Throttled { answer, .. } => {
                Some(&answer.status)
            }
            Self::Unknown(_) => None,
        }
    }

    /// The message of the cause with this reason in the answer's details, such as `DisruptionBudget` of a refused
    /// eviction.
    pub fn cause(&self, reason: &str) -> Option<&str> {
        let causes = &self.status()?.details.as_ref()?.causes;
        causes.iter().find(|cause| cause.reason == reason).map(|cause| cause.message.as_str())
    }

    /// The pause that the server asks for.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the call may have taken effect.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }

    fn sort(what: &str, error: kube::Error) -> Self {
        let kube::Error::Api(status) = error else {
            return Self::Unknown(format!("{what}: {}", explain(&error)));
        };
        // An answer that is no Status of the API server comes from something in between, whose 404 says nothing about
        // an object; kube gives it no code or this reason. Only the API server's own throttle answers in plain text.
        let foreign = status.reason == "Failed to parse error data";
        let answer = |status: Box<Status>| Box::new(Answer { what: what.to_owned(), status: *status });
        match status.code {
            429 => Self::Throttled { retry_after: retry_after(&status), answer: answer(status) },
            404 if status.reason == "NotFound" => Self::Gone(answer(status)),
            409 if !foreign => Self::Conflict(answer(status)),
            // A 408 is a timeout: the request may have been carried out.
            400..=499 if !foreign && !matches!(status.code, 404 | 408) => Self::Refused(answer(status)),
            code => Self::Unknown(format!("{what}: {code} {}: {}", status.reason, status.message)),
        }
    }
}

impl Display for CallError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone(answer) => write!(f, "{answer} (it does not exist)"),
            Self::Conflict(answer) => write!(f, "{answer} (conflict)"),
            Self::Throttled { answer, .. } => write!(f, "{answer} (throttled)"),
            Self::Refused(answer) => write!(f, "{answer} (refused)"),
            Self::Unknown(why) => write!(f, "{why} (the outcome is unknown)"),
        }
    }
}

impl Error for CallError {}

impl Display for Answer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}: {}", self.what, self.status.code, self.status.reason, self.status.message)
    }
}

fn retry_after(status: &Status) -> Option<Duration> {
    let seconds = status.details.as_ref()?.retry_after_seconds;
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::future::{pending, ready};

    use kube::core::response::{StatusCause, StatusDetails};

    use super::*;

    fn api(code: u16, reason: &str) -> kube::Error {
        kube::Error::Api(Status::failure("its words", reason).with_code(code).boxed())
    }

    async fn check(error: kube::Error, expected: &str) {
        let told = error.to_string();
        let sorted = call::<()>("patching the node", ready(Err(error))).await.unwrap_err();
        let name = match &sorted {
            CallError::Gone(_) => "gone",
            CallError::Conflict(_) => "conflict",
            CallError::Throttled { .. } => "throttled",
            CallError::Refused(_) => "refused",
            CallError::Unknown(_) => "unknown",
        };
        assert_eq!(name, expected, "{told}");
        assert_eq!(sorted.is_unknown(), sorted.status().is_none(), "{told}");
        assert!(sorted.to_string().starts_with("patching the node: "), "{sorted}");
    }

    #[tokio::test]
    async fn outcomes_are_sorted_by_what_is_known_afterwards() {
        let not_json = "Failed to parse error data";
        for (code, reason, expected) in [
            (404, "NotFound", "gone"),
            (404, not_json, "unknown"),
            (404, "", "unknown"),
            (409, "Conflict", "conflict"),
            (409, "AlreadyExists", "conflict"),
            (409, not_json, "unknown"),
            (429, "TooManyRequests", "throttled"),
            (429, not_json, "throttled"),
            (400, "BadRequest", "refused"),
            (401, "Unauthorized", "refused"),
            (403, "Forbidden", "refused"),
            (403, not_json, "unknown"),
            (410, "Expired", "refused"),
            (422, "Invalid", "refused"),
            (408, "Timeout", "unknown"),
            (500, "InternalError", "unknown"),
            (503, "ServiceUnavailable", "unknown"),
            (504, "Timeout", "unknown"),
            (302, not_json, "unknown"),
            (0, "", "unknown"),
        ] {
            check(api(code, reason), expected).await;
        }
        let broken = serde_json::from_str::<u8>("{").unwrap_err();
        check(kube::Error::SerdeError(broken), "unknown").await;
        check(kube::Error::Service("connection reset".into()), "unknown").await;
    }

    #[test]
    fn an_explanation_says_each_cause_once() {
        let refused = std::io::Error::other("connection refused");
        let connect = anyhow::Error::new(refused).context("client error (Connect)");
        let error = kube::Error::Service(connect.into());
        assert_eq!(explain(&error), "ServiceError: client error (Connect): connection refused");
    }

    #[tokio::test]
    async fn a_call_that_hangs_ends_as_unknown() {
        let limit = Duration::from_millis(1);
        let error = call_within::<()>(limit, "reading the node", pending()).await.unwrap_err();
        assert_eq!(error.to_string(), "reading the node: no answer within 1ms (the outcome is unknown)");
    }

    #[tokio::test]
    async fn a_refused_eviction_keeps_its_pause_and_its_cause() {
        let cause = StatusCause {
            reason: "DisruptionBudget".to_owned(),
            message: "the budget web needs 2 healthy pods and has 2 currently".to_owned(),
            field: String::new(),
        };
        let details = StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: vec![cause.clone()],
            retry_after_seconds: 10,
        };
        let status = Status::failure("no", "TooManyRequests").with_code(429).with_details(details);
        let refusal = kube::Error::Api(status.boxed());
        let error = call::<()>("evicting web-0", ready(Err(refusal))).await.unwrap_err();
        assert_eq!(error.cause("DisruptionBudget"), Some(cause.message.as_str()));
        assert_eq!(error.cause("Other"), None);
        assert_eq!(error.retry_after(), Some(Duration::from_secs(10)));
    }
}
