//! Identities that the protocol compares: boot IDs and grant ids.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The kernel's identity of one boot, as in `/proc/sys/kernel/random/boot_id` and `status.nodeInfo.bootID`.
///
/// A text that is no UUID does not become a `BootId`: it is unknown, and unknown is never "different" (S3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId(u128);

/// Why a text is not an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseIdError(&'static str);

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for ParseIdError {}

impl FromStr for BootId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        const WRONG: ParseIdError = ParseIdError("a boot ID is a UUID of 36 characters");
        let groups: Vec<&str> = text.split('-').collect();
        let lengths_fit = groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]);
        let hex = groups.concat();
        if !lengths_fit || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(WRONG);
        }
        match u128::from_str_radix(&hex, 16) {
            Ok(0) | Err(_) => Err(WRONG),
            Ok(value) => Ok(Self(value)),
        }
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(id) = *self;
        let group = |shift: u32, bits: u32| (id >> shift) & ((1 << bits) - 1);
        write!(f, "{:08x}-{:04x}-", group(96, 32), group(80, 16))?;
        write!(f, "{:04x}-{:04x}-{:012x}", group(64, 16), group(48, 16), group(0, 48))
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What makes one cycle of a boot different from every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Serial {
    /// Granted: the resourceVersion of the ledger that the slot's write replaced.
    Granted(u64),
    /// Forced by a person: the resourceVersion of the Node at which the agent saw `now`.
    Forced(u64),
}

/// The id of one reboot cycle: `<boot ID>.<n>` when granted, `<boot ID>.now-<n>` when forced.
///
/// It is bound to the boot under which it was given, so after the reboot it is spent by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantId {
    /// The boot that the cycle is to end.
    pub boot: BootId,
    /// Distinguishes the cycles of one boot.
    pub serial: Serial,
}

impl GrantId {
    /// Whether a person forced this cycle, outside the quota.
    pub fn is_forced(&self) -> bool {
        matches!(self.serial, Serial::Forced(_))
    }
}

impl FromStr for GrantId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        const WRONG: ParseIdError = ParseIdError("a grant id is <boot ID>.<number> or <boot ID>.now-<number>");
        let (boot, serial) = text.split_once('.').ok_or(WRONG)?;
        let boot = boot.parse().map_err(|_| WRONG)?;
        let serial = match serial.strip_prefix("now-") {
            Some(number) => Serial::Forced(parse_version(number).ok_or(WRONG)?),
            None => Serial::Granted(parse_version(serial).ok_or(WRONG)?),
        };
        Ok(Self { boot, serial })
    }
}

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.serial {
            Serial::Granted(number) => write!(f, "{}.{number}", self.boot),
            Serial::Forced(number) => write!(f, "{}.now-{number}", self.boot),
        }
    }
}

/// A resourceVersion as a number, which Kubernetes promises it to be (KEP-5504); digits only, no sign.
pub fn parse_version(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
serde_as_text!(BootId);
serde_as_text!(GrantId);

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: &str = "0f7f3d1c-1c3a-4a52-9d3b-2f6a3c5e7b90";

    #[track_caller]
    fn check<T: FromStr<Err = ParseIdError> + fmt::Display>(text: &str, expected: Option<&str>) {
        let parsed = text.parse::<T>().ok().map(|id| id.to_string());
        assert_eq!(parsed.as_deref(), expected, "{text:?}");
    }

    #[test]
    fn a_boot_id_is_a_uuid_and_nothing_else() {
        check::<BootId>(BOOT, Some(BOOT));
        check::<BootId>(&BOOT.to_uppercase(), Some(BOOT));
        assert_eq!(format!("{:?}", BOOT.parse::<BootId>().unwrap()), BOOT, "nobody reads it as a number");
        for wrong in ["", " ", "unknown", &BOOT[1..], &format!("{BOOT}\n"), "00000000-0000-0000-0000-000000000000"] {
            check::<BootId>(wrong, None);
        }
        check::<BootId>("+f7f3d1c-1c3a-4a52-9d3b-2f6a3c5e7b90", None);
        check::<BootId>("0f7f3d1c1-c3a-4a52-9d3b-2f6a3c5e7b90", None);
    }

    #[test]
    fn a_grant_id_names_its_boot_and_its_serial() {
        check::<GrantId>(&format!("{BOOT}.17"), Some(&format!("{BOOT}.17")));
        check::<GrantId>(&format!("{BOOT}.now-9"), Some(&format!("{BOOT}.now-9")));
        for wrong in
            [BOOT.to_owned(), format!("{BOOT}."), format!("{BOOT}.x"), format!("{BOOT}.+1"), format!(".{BOOT}")]
        {
            check::<GrantId>(&wrong, None);
        }
        check::<GrantId>(&format!("{BOOT}.now-"), None);
        let refused = BOOT.parse::<GrantId>().unwrap_err().to_string();
        assert_eq!(refused, "a grant id is <boot ID>.<number> or <boot ID>.now-<number>");
        check::<GrantId>(&format!("{BOOT}.1 "), None);
    }
}
