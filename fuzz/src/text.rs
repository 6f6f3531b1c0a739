//! What every text must be that ends up in an annotation, an Event or a log line.

/// The longest piece of foreign text that is shown, in characters.
pub const FOREIGN: usize = 512;

/// The longest reason why a value is malformed: a quoted piece of it, of which each character may be escaped, and the
/// reader's own words, which may quote it as well.
pub const REASON: usize = 650 + FOREIGN;

/// Fails unless a text of foreign origin was made fit to be shown: without control characters, and of at most so many.
///
/// # Panics
/// When it was not.
#[track_caller]
pub fn check_shown(text: &str, longest: usize) {
    assert!(!text.chars().any(char::is_control), "control characters in {text:?}");
    let found = text.chars().count();
    assert!(found <= longest, "{found} characters, {longest} are allowed: {text:?}");
}
