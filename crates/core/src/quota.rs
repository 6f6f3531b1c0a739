//! The quota of unavailable nodes: a number, or a percentage of the selected nodes.

use std::fmt;
use std::str::FromStr;

/// `--max-unavailable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// So many nodes.
    Nodes(usize),
    /// A percentage of the selected nodes, 0 to 100.
    Percent(u8),
}

impl Quota {
    /// The number of slots for this many selected nodes: percentages are rounded down, and above 0 % at least 1.
    pub fn limit(self, selected: usize) -> usize {
        match self {
            Self::Nodes(nodes) => nodes,
            Self::Percent(0) => 0,
            Self::Percent(percent) => (selected.saturating_mul(usize::from(percent)) / 100).max(1),
        }
    }
}

/// Why a text is no quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseQuotaError;

impl fmt::Display for ParseQuotaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a quota is a number of nodes such as 2, or a percentage from 0% to 100%")
    }
}

impl std::error::Error for ParseQuotaError {}

impl FromStr for Quota {
    type Err = ParseQuotaError;

    fn from_str(text: &str) -> Result<Self, ParseQuotaError> {
        let digits = text.strip_suffix('%').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ParseQuotaError);
        }
        if text.ends_with('%') {
            match digits.parse() {
                Ok(percent @ 0..=100) => Ok(Self::Percent(percent)),
                _ => Err(ParseQuotaError),
            }
        } else {
            digits.parse().map(Self::Nodes).map_err(|_| ParseQuotaError)
        }
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(nodes) => write!(f, "{nodes}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, selected: usize, limit: Option<usize>) {
        assert_eq!(text.parse::<Quota>().ok().map(|quota| quota.limit(selected)), limit, "{text:?} of {selected}");
    }

    #[test]
    fn a_percentage_is_rounded_down_and_at_least_one() {
        check("25%", 7, Some(1));
        check("25%", 8, Some(2));
        check("1%", 3, Some(1));
        check("100%", 3, Some(3));
        check("50%", 0, Some(1));
    }

    #[test]
    fn a_quota_is_said_as_it_was_given_and_what_is_none_is_told_what_would_be() {
        for text in ["2", "25%"] {
            assert_eq!(text.parse::<Quota>().unwrap().to_string(), text);
        }
        let refused = "2.5".parse::<Quota>().unwrap_err().to_string();
        assert_eq!(refused, "a quota is a number of nodes such as 2, or a percentage from 0% to 100%");
    }

    #[test]
    fn zero_grants_nothing() {
        check("0", 9, Some(0));
        check("0%", 9, Some(0));
    }

    #[test]
    fn anything_else_is_refused() {
        for wrong in ["", "%", "-1", "+1", "101%", "1.5", "1 ", "ten", "99999999999999999999", "1%%"] {
            check(wrong, 5, None);
        }
    }
}
