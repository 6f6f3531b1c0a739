//! API priority and fairness answers 429 in plain text, with the pause that it asks for only in `Retry-After`, which kube
//! does not pass on. Such an answer is replaced by a `Status` with `retryAfterSeconds`.

use http_body_util::{Either, Full};
use hyper::{
    Response, StatusCode,
    body::{Body, Bytes},
    header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER},
};

/// Passes every answer on, and turns a 429 in plain text into a `Status` with `retryAfterSeconds`.
pub(crate) fn say_pause<B: Body>(answer: Response<B>) -> Response<Either<B, Full<Bytes>>> {
    match pause(&answer) {
        Some(seconds) => answer.map(|_| Either::Right(Full::new(status(seconds).into()))),
        None => answer.map(Either::Left),
    }
}

/// The seconds that a 429 which is no `Status` asks for.
fn pause<B>(answer: &Response<B>) -> Option<u32> {
    let header = |name: HeaderName| answer.headers().get(name).map(HeaderValue::as_bytes);
    let is_status = header(CONTENT_TYPE).is_some_and(|kind| kind.starts_with(b"application/json"));
    let throttled = answer.status() == StatusCode::TOO_MANY_REQUESTS && !is_status;
    header(RETRY_AFTER).filter(|_| throttled).and_then(|seconds| std::str::from_utf8(seconds).ok()?.parse().ok())
}

fn status(seconds: u32) -> String {
    let says = r#""status":"Failure","reason":"TooManyRequests","code":429,"message":"too many requests""#;
    format!(r#"{{"kind":"Status","apiVersion":"v1",{says},"details":{{"retryAfterSeconds":{seconds}}}}}"#)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http_body_util::BodyExt as _;
    use kube::core::Status;

    use super::*;

    /// `pause`: the seconds that the answer's `Status` asks for; `None`: its body is handed on.
    async fn check(code: u16, kind: &str, retry_after: Option<&str>, pause: Option<u32>) {
        let mut answer = Response::builder().status(code).header(CONTENT_TYPE, kind);
        if let Some(seconds) = retry_after {
            answer = answer.header(RETRY_AFTER, seconds);
        }
        let answer = say_pause(answer.body(Full::new(Bytes::from("as it was"))).unwrap());
        assert_eq!(answer.status(), code);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        match pause {
            Some(seconds) => {
                let status: Status = serde_json::from_slice(&body).unwrap();
                assert_eq!((status.code, status.details.unwrap().retry_after_seconds), (429, seconds));
            }
            None => assert_eq!(body, "as it was", "{code} {kind} {retry_after:?}"),
        }
    }

    #[tokio::test]
    async fn a_pause_that_only_the_header_asks_for_is_in_the_status() {
        check(429, "text/plain; charset=utf-8", Some("7"), Some(7)).await;
        check(429, "text/plain; charset=utf-8", None, None).await;
        check(429, "text/plain; charset=utf-8", Some("Wed, 25 Nov 2026 21:00:00 GMT"), None).await;
        check(429, "application/json", Some("7"), None).await;
        check(503, "text/plain; charset=utf-8", Some("7"), None).await;
        check(200, "text/plain; charset=utf-8", Some("7"), None).await;
    }
}
