//! What the host says of itself in files: the boot ID, the version of its operating system, its uptime.

use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context as _, Result, ensure};
use reboot_core::values::printable;

/// Where the kernel keeps the ID of the running boot.
pub(crate) const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// Where the operating system describes itself (os-release(5)).
pub(crate) const OS_RELEASE_FILE: &str = "/etc/os-release";

/// The ID of the running boot, as the file has it but for the white space around it.
///
/// # Errors
/// A file that cannot be read or is empty; whether the text is a boot ID is for the caller to judge.
pub(crate) fn boot_id(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("reading the boot ID from {}", path.display()))?;
    let boot_id = text.trim();
    ensure!(!boot_id.is_empty(), "reading the boot ID: {} is empty", path.display());
    Ok(boot_id.to_owned())
}

/// The version of the operating system, by an os-release file: `VERSION`, or `VERSION_ID` where there is none.
///
/// The version is only ever shown and compared, so a host without a readable one simply has none.
pub(crate) fn os_version(path: &Path) -> Option<String> {
    match fs::read(path) {
        Ok(bytes) => version_in(&String::from_utf8_lossy(&bytes)),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "cannot read the version of the operating system");
            }
            None
        }
    }
}

/// The time since the machine booted.
///
/// # Errors
/// `/proc/uptime` cannot be read, or does not begin with a number of seconds.
pub(crate) fn uptime() -> Result<Duration> {
    uptime_in(&fs::read_to_string("/proc/uptime").context("reading the uptime")?)
}

fn version_in(os_release: &str) -> Option<String> {
    // The file is a shell fragment: the last assignment counts.
    let value_of = |key: &str| {
        let assigned = |line| str::strip_prefix(line, key)?.strip_prefix('=');
        let value = unquote(os_release.lines().map(str::trim).filter_map(assigned).next_back()?);
        (!value.is_empty()).then(|| printable(&value))
    };
    value_of("VERSION").or_else(|| value_of("VERSION_ID"))
}

/// Removes the quotes of a shell, and within double quotes also its backslashes.
fn unquote(value: &str) -> String {
    let within = |quote| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    if let Some(literal) = within('\'') {
        return literal.to_owned();
    }
    let Some(quoted) = within('"') else { return value.to_owned() };
    let mut plain = String::with_capacity(quoted.len());
    let mut chars = quoted.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some(&escaped @ ('"' | '$' | '\\' | '`'))) => {
                chars.next();
                plain.push(escaped);
            }
            _ => plain.push(c),
        }
    }
    plain
}

fn uptime_in(text: &str) -> Result<Duration> {
    let seconds = text.split_whitespace().next().and_then(|first| first.parse().ok());
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .with_context(|| format!("reading the uptime: {:?} does not begin with seconds", printable(text)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn check_version(os_release: &str, expected: Option<&str>) {
        assert_eq!(version_in(os_release).as_deref(), expected, "of {os_release:?}");
    }

    #[test]
    fn version_comes_from_version_else_from_version_id() {
        check_version("ID=flatcar\nVERSION=4459.2.0\nVERSION_ID=4459.2.0\n", Some("4459.2.0"));
        check_version("VERSION_ID=12\nVERSION=\"12 (bookworm)\"\n", Some("12 (bookworm)"));
        check_version("ID=arch\nVERSION_ID=3.20\n", Some("3.20"));
        check_version("VERSION=\nVERSION_ID=3.20\n", Some("3.20"));
        check_version("VERSION=1\nVERSION=2\n", Some("2"));
    }

    #[test]
    fn a_host_without_a_version_has_none() {
        check_version("", None);
        check_version("ID=arch\nVERSION=\"\"\n# VERSION=3\nMY_VERSION=4\nVERSION_CODENAME=x\nVERSION\n", None);
        assert_eq!(os_version(Path::new("/nonexistent/os-release")), None);
        assert_eq!(os_version(Path::new("/")), None);
    }

    #[test]
    fn quotes_of_the_shell_are_removed() {
        check_version("VERSION='1 \\$x'", Some("1 \\$x"));
        check_version(r#"VERSION="a \"b\" \$c \\ \d""#, Some(r#"a "b" $c \ \d"#));
        check_version("VERSION=\"", Some("\""));
        check_version("VERSION=\"1\\\"", Some("1\\"));
        check_version("\tVERSION=1 \r\n", Some("1"));
    }

    #[test]
    fn foreign_text_is_cut_and_cleaned() {
        check_version("VERSION=a\u{7}b", Some("a\u{fffd}b"));
        check_version(&format!("VERSION={}", "ä".repeat(100_000)), Some(&"ä".repeat(512)));
    }

    #[test]
    fn uptime_is_the_first_number() {
        let check = |text, expected| assert_eq!(uptime_in(text).ok(), expected, "of {text:?}");
        check("350735.47 234388.90\n", Some(Duration::from_millis(350_735_470)));
        check("7", Some(Duration::from_secs(7)));
        for malformed in ["", "\n", "x 1", "-1 2", "NaN 1", "inf 1", "1e300 1"] {
            check(malformed, None);
        }
        assert!(uptime().unwrap() > Duration::ZERO);
    }

    #[test]
    fn boot_id_is_trimmed_and_its_absence_is_an_error() {
        assert_eq!(boot_id(Path::new(BOOT_ID_FILE)).unwrap().len(), 36);
        let says = |path| format!("{:#}", boot_id(Path::new(path)).unwrap_err());
        assert!(says("/dev/null").ends_with("/dev/null is empty"), "{}", says("/dev/null"));
        assert!(
            says("/nonexistent").starts_with("reading the boot ID from /nonexistent: "),
            "{}",
            says("/nonexistent")
        );
    }
}
