//! A fake systemd, as far as it tells of units.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use zbus::{Message, ObjectPath, Variant};

use super::Bus;
use super::service::{Behaviour, Reply, Service, member};

const NAME: &str = "org.freedesktop.systemd1";

/// Owns `org.freedesktop.systemd1`, and knows the units that it is told of.
#[derive(Debug)]
pub struct FakeSystemd {
    service: Service,
    units: Arc<Units>,
}

/// The state of each unit, by its name.
#[derive(Debug, Default)]
struct Units(Mutex<BTreeMap<String, String>>);

impl FakeSystemd {
    /// A systemd without units on `bus`, already running.
    ///
    /// # Errors
    /// The bus cannot be reached, or has another systemd.
    pub async fn start(bus: &Bus) -> Result<Self> {
        let units = Arc::<Units>::default();
        let systemd = Self { service: Service::new(bus.address(), NAME, units.clone()), units };
        systemd.resume().await?;
        Ok(systemd)
    }

    /// Loads a unit, or changes the state of it: `active`, `inactive`, `failed`, ...
    pub fn set(&self, unit: &str, state: &str) {
        self.units.0.lock().unwrap_or_else(PoisonError::into_inner).insert(unit.to_owned(), state.to_owned());
    }

    /// Leaves the bus.
    pub async fn stop(&self) {
        self.service.stop().await;
    }

    /// Runs again, also over a bus that was restarted.
    ///
    /// # Errors
    /// The bus cannot be reached, or has another systemd.
    pub async fn resume(&self) -> Result<()> {
        self.service.start().await
    }
}

impl Behaviour for Units {
    fn answer(&self, call: &Message) -> Reply {
        let units = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match member(call).as_str() {
            "GetUnit" => {
                let unit: String = call.body().deserialize().unwrap_or_default();
                if units.contains_key(&unit) {
                    return match ObjectPath::try_from(path_of(&unit)) {
                        Ok(path) => Reply::value(call, &path),
                        Err(error) => Reply::Message(Err(error)),
                    };
                }
                let words = format!("Unit {unit} not loaded.");
                Reply::error(call, "org.freedesktop.systemd1.NoSuchUnit", &words)
            }
            "Get" => {
                let path = call.header().path().map(ToString::to_string).unwrap_or_default();
                match units.iter().find(|(unit, _)| path_of(unit) == path) {
                    Some((_, state)) => Reply::value(call, &Variant::from(state.as_str())),
                    None => Reply::error(call, "org.freedesktop.DBus.Error.UnknownObject", "Unknown object"),
                }
            }
            _ => Reply::unknown_method(call),
        }
    }
}

/// The object of a unit; systemd writes what may not stand in a path as `_` and two hexadecimal digits.
fn path_of(unit: &str) -> String {
    unit.bytes().fold(String::from("/org/freedesktop/systemd1/unit/"), |path, byte| {
        if byte.is_ascii_alphanumeric() { path + &char::from(byte).to_string() } else { format!("{path}_{byte:02x}") }
    })
}
