//! The node's systemd-logind, which reboots it, and systemd, which knows what else runs on it.
//!
//! Every call connects anew, so a bus that was restarted, or a connection that broke, is no special case.

use anyhow::{Context as _, Result};
use reboot_core::values::printable;
use zbus::names::ErrorName;
use zbus::{DBusError as _, Message, OwnedObjectPath, Proxy, fdo};

use crate::bus::{self, Bus};

const SERVICE: &str = "org.freedesktop.login1";
const PATH: &str = "/org/freedesktop/login1";
const INTERFACE: &str = "org.freedesktop.login1.Manager";

const SYSTEMD_SERVICE: &str = "org.freedesktop.systemd1";
const SYSTEMD_PATH: &str = "/org/freedesktop/systemd1";
const SYSTEMD_INTERFACE: &str = "org.freedesktop.systemd1.Manager";
const SYSTEMD_UNIT: &str = "org.freedesktop.systemd1.Unit";

/// `SD_LOGIND_ROOT_CHECK_INHIBITORS`: a lock that blocks shutdown stops us too, on every version of systemd (before
/// 257 root would pass it, from 257 on it does not).
const CHECK_INHIBITORS: u64 = 1;

/// logind's name for "a lock blocks it", from systemd 257 on.
const BLOCKED: &str = "org.freedesktop.login1.BlockedByInhibitorLock";

/// Flatcar's own reboot manager, which would reboot behind our back.
const OTHER_REBOOT_MANAGER: &str = "locksmithd.service";

/// logind's answer to "could I reboot?", with its own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CanReboot {
    /// It would reboot now.
    Yes,
    /// We may, but somebody holds a lock at present.
    Inhibited(String),
    /// We may not, or it cannot (`na`, `no`, `challenge`, or a word that is not known here).
    No(String),
}

impl CanReboot {
    /// Reads logind's reply.
    ///
    /// # Errors
    /// A message of another shape.
    pub fn read(reply: &Message) -> zbus::Result<Self> {
        let word: String = reply.body().deserialize()?;
        Ok(match word.as_str() {
            "yes" => Self::Yes,
            "inhibited" | "inhibitor-blocked" => Self::Inhibited(word),
            _ => Self::No(printable(&word)),
        })
    }
}

/// What became of a request to reboot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RebootReply {
    /// The machine is going down.
    Accepted,
    /// Somebody's request was there before; the machine is going down as well.
    InProgress,
    /// No answer, and why: the request may have been heard, so the machine may be going down.
    Lost(String),
    /// The answer is no: the machine is not going down.
    Refused {
        /// The D-Bus name of the error.
        name: String,
        /// Its words; where a lock is the reason, also who holds it.
        message: String,
    },
    /// The request reached nobody, and why.
    Unreachable(String),
}

/// The logind and systemd of a node.
#[derive(Clone, Debug)]
pub struct Logind {
    bus: Bus,
}

impl Logind {
    /// The ones on `bus`.
    pub fn new(bus: Bus) -> Self {
        Self { bus }
    }

    /// Asks whether a request to reboot would be granted; nothing happens to the machine.
    ///
    /// # Errors
    /// logind cannot be reached or refuses to answer.
    pub async fn can_reboot(&self) -> Result<CanReboot> {
        let manager = self.manager().await.context("connecting to the bus")?;
        let reply = self.bus.within(manager.call_method("CanReboot", &())).await;
        reply.and_then(|reply| CanReboot::read(&reply)).context("asking logind for CanReboot")
    }

    /// Asks logind to reboot the machine, honouring locks that block it, whoever holds them: before systemd 257 logind
    /// itself overlooks the locks of its caller's own user, and root's are those that administrators take.
    pub async fn reboot(&self) -> RebootReply {
        let manager = match self.manager().await {
            Ok(manager) => manager,
            Err(error) => return RebootReply::Unreachable(printable(&format!("connecting to the bus: {error}"))),
        };
        if let Some(message) = self.lock_on(&manager).await {
            return RebootReply::Refused { name: BLOCKED.to_owned(), message };
        }
        let mut answer = self.bus.within(manager.call_method("RebootWithFlags", &CHECK_INHIBITORS)).await;
        if answer.as_ref().is_err_and(is_unknown_method) {
            // systemd before 246.
            let interactive = false;
            answer = self.bus.within(manager.call_method("Reboot", &interactive)).await;
        }
        match answer.map_or_else(RebootReply::from, |_| RebootReply::Accepted) {
            RebootReply::Refused { name, message } if is_lock(&name) => RebootReply::Refused {
                name,
                message: message + &self.blockers(&manager, &["block", "block-weak"]).await,
            },
            reply => reply,
        }
    }

    /// Who holds a lock that blocks shutdowns, in words; `None`: nobody, or logind does not say.
    pub async fn lock(&self) -> Option<String> {
        let manager =
            self.manager().await.inspect_err(|error| tracing::debug!(%error, "logind cannot be asked")).ok()?;
        self.lock_on(&manager).await
    }

    /// Whether logind has begun to shut the machine down. `None`: not known.
    pub async fn preparing_for_shutdown(&self) -> Option<bool> {
        let property = async {
            let manager = self.manager().await?;
            self.bus.within(manager.get_property("PreparingForShutdown")).await
        };
        property.await.inspect_err(|error| tracing::debug!(%error, "PreparingForShutdown is unknown")).ok()
    }

    /// The unit of another reboot manager that is active on this node. `None`: there is none, or systemd does not tell.
    pub async fn active_reboot_manager(&self) -> Option<String> {
        match self.unit_state(OTHER_REBOOT_MANAGER).await {
            Ok(state) => matches!(state.as_str(), "active" | "reloading").then(|| OTHER_REBOOT_MANAGER.to_owned()),
            Err(error) => {
                // The usual one is NoSuchUnit.
                tracing::debug!(%error, unit = OTHER_REBOOT_MANAGER, "no state of the unit");
                None
            }
        }
    }

    async fn manager(&self) -> zbus::Result<Proxy<'static>> {
        bus::object(&self.bus.connect().await?, SERVICE, PATH, INTERFACE).await
    }

    async fn unit_state(&self, unit: &str) -> zbus::Result<String> {
        let connection = self.bus.connect().await?;
        let systemd = bus::object(&connection, SYSTEMD_SERVICE, SYSTEMD_PATH, SYSTEMD_INTERFACE).await?;
        let path: OwnedObjectPath = self.bus.within(systemd.call("GetUnit", &unit)).await?;
        let unit = bus::object(&connection, SYSTEMD_SERVICE, path.as_str(), SYSTEMD_UNIT).await?;
        self.bus.within(unit.get_property("ActiveState")).await
    }

    async fn lock_on(&self, manager: &Proxy<'_>) -> Option<String> {
        let holders = self.blockers(manager, &["block"]).await;
        (!holders.is_empty()).then(|| format!("a lock blocks the shutdown{holders}"))
    }

    /// Who holds a lock of these modes on shutdowns, as the end of a sentence; empty when nobody does or logind does not say.
    async fn blockers(&self, manager: &Proxy<'_>, modes: &[&str]) -> String {
        let reply = self.bus.within(manager.call_method("ListInhibitors", &())).await;
        reply.and_then(|reply| holders(&reply, modes)).unwrap_or_else(|error| {
            tracing::debug!(%error, "logind does not list its locks");
            String::new()
        })
    }
}

/// Reads logind's list of locks: who holds one of these modes on shutdowns, as the end of a sentence; empty when nobody
/// does.
///
/// # Errors
/// A message of another shape.
pub fn holders(reply: &Message, modes: &[&str]) -> zbus::Result<String> {
    // What, who, why, mode, user ID, process ID.
    type Lock = (String, String, String, String, u32, u32);
    let locks: Vec<Lock> = reply.body().deserialize()?;
    let blocks = |(what, _, _, mode, ..): &&Lock| {
        what.split(':').any(|what| what == "shutdown") && modes.contains(&mode.as_str())
    };
    let holders: Vec<_> = locks
        .iter()
        .filter(blocks)
        .map(|(_, who, why, ..)| format!("{} ({})", printable(who), printable(why)))
        .collect();
    Ok(if holders.is_empty() { String::new() } else { format!("; held by {}", printable(&holders.join(", "))) })
}

/// Whether a refusal by this name can mean a lock. Before systemd 257 it is a plain `AccessDenied`.
fn is_lock(name: &str) -> bool {
    matches!(name, BLOCKED | "org.freedesktop.DBus.Error.AccessDenied")
}

fn is_unknown_method(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::FDO(error) if matches!(**error, fdo::Error::UnknownMethod(_)))
}

/// Sorts a failed request by what it says of the machine. What says nothing counts as lost: it may be going down.
impl From<zbus::Error> for RebootReply {
    fn from(error: zbus::Error) -> Self {
        match error {
            zbus::Error::MethodError(name, words, reply) => {
                // The bus itself answers for a logind that it could not start.
                if reply.header().sender().is_some_and(|sender| sender == "org.freedesktop.DBus") {
                    return Self::Unreachable(printable(&format!("{name}: {}", words.unwrap_or_default())));
                }
                refusal(&name, words.as_deref())
            }
            zbus::Error::FDO(error) => classify_standard(&error),
            error => Self::Lost(printable(&error.to_string())),
        }
    }
}

fn refusal(name: &ErrorName<'_>, words: Option<&str>) -> RebootReply {
    if name.as_str() == "org.freedesktop.login1.OperationInProgress" {
        return RebootReply::InProgress;
    }
    RebootReply::Refused { name: name.to_string(), message: printable(words.unwrap_or_default()) }
}

fn classify_standard(error: &fdo::Error) -> RebootReply {
    use fdo::Error as E;
    match error {
        // The bus says so when logind, or the way to it, went away in between.
        E::ZBus(_) | E::NoReply(_) | E::Timeout(_) | E::TimedOut(_) | E::Disconnected(_) | E::IOError(_) => {
            RebootReply::Lost(printable(&error.to_string()))
        }
        // The bus has nobody to give the request to, or no room for it.
        E::ServiceUnknown(_)
        | E::NameHasNoOwner(_)
        | E::LimitsExceeded(_)
        | E::SpawnExecFailed(_)
        | E::SpawnForkFailed(_)
        | E::SpawnChildExited(_)
        | E::SpawnChildSignaled(_)
        | E::SpawnFailed(_)
        | E::SpawnFailedToSetup(_)
        | E::SpawnConfigInvalid(_)
        | E::SpawnServiceNotValid(_)
        | E::SpawnServiceNotFound(_)
        | E::SpawnPermissionsInvalid(_)
        | E::SpawnFileInvalid(_)
        | E::SpawnNoMemory(_) => RebootReply::Unreachable(printable(&error.to_string())),
        refused => refusal(&refused.name(), refused.description()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_holders_of_locks_are_named_in_a_bounded_and_printable_text() {
        let lock = |who: &str, mode: &str| {
            ("sleep:shutdown".to_owned(), who.to_owned(), "why\u{7}".to_owned(), mode.to_owned(), 0, 1)
        };
        let listed = |locks: Vec<(String, String, String, String, u32, u32)>| {
            let call = Message::method_call("/", "ListInhibitors").build(&()).unwrap();
            let reply = Message::method_return(&call.header()).build(&locks).unwrap();
            holders(&reply, &["block"]).unwrap()
        };
        assert_eq!(listed(vec![lock("apt", "delay")]), "");
        assert_eq!(
            listed(vec![lock("apt", "block"), lock("dnf", "block")]),
            "; held by apt (why\u{fffd}), dnf (why\u{fffd})"
        );
        assert_eq!(listed(vec![lock("apt", "block"); 8192]).chars().count(), "; held by ".len() + 512);
    }
}
