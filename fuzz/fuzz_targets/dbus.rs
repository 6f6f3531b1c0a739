//! What update_engine, logind and the bus answer, from arbitrary bytes.
//!
//! The first line is whose answer it is, the byte order as on the wire, and the body's signature; the second is the name
//! of the error, if it is one; the rest is the body. So `slxdssx` begins a status in little endian. After `m` there is
//! a whole message instead, header and all.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reboot_agent::logind::{CanReboot, RebootReply, holders};
use reboot_agent::update_engine::{EngineState, Operation};
use reboot_fuzz::text::{FOREIGN, check_shown};
use zbus::Message;
use zbus::wire::serialized::{Context, Data};
use zbus::wire::{BE, Endian, LE};

fuzz_target!(|data: &[u8]| {
    let [whose, order, rest @ ..] = data else { return };
    let endian = if *order == b'B' { BE } else { LE };
    if *whose == b'm' {
        return check_whole(rest, endian);
    }
    let mut parts = rest.splitn(3, |byte| *byte == b'\n');
    let mut line = || parts.next().unwrap_or_default();
    let (signature, name, body) = (line(), line(), line());
    let (Ok(signature), Ok(name)) = (str::from_utf8(signature), str::from_utf8(name)) else { return };
    if signature.len() > 255 {
        // On the wire there is no such signature, and the library does not build one.
        return;
    }
    let Some(message) = message(*whose, endian, signature, name, body) else { return };
    match whose {
        b's' => check_status(&message, body),
        b'c' => check_can_reboot(&message, body),
        b'h' => check_holders(&message),
        _ => check_refusal(message),
    }
});

/// A reply, or with a name an error reply, with these very bytes as its body. `E` is an error of the bus itself.
fn message(whose: u8, endian: Endian, signature: &str, name: &str, body: &[u8]) -> Option<Message> {
    let call = Message::method_call("/", "Call").endian(endian).build(&()).ok()?;
    let reply = match whose {
        b'e' | b'E' => Message::error(&call.header(), name),
        _ => Message::method_return(&call.header()),
    };
    let reply = if whose == b'E' { reply.sender("org.freedesktop.DBus") } else { reply.sender(":1.7") };
    // SAFETY: the body may be invalid, which is what its readers are tested on; no file descriptors come with it.
    #[allow(unsafe_code, reason = "the way by which bytes that nobody checked come in")]
    unsafe { reply.endian(endian).build_raw_body(body, signature, Vec::new()) }.ok()
}

/// Header and body, as they come from the socket; whatever it is, every reader is given it.
fn check_whole(bytes: &[u8], endian: Endian) {
    let data = Data::new(bytes.to_vec(), Context::new(endian, 0));
    // SAFETY: the message may be invalid, which is what its readers are tested on.
    #[allow(unsafe_code, reason = "as above")]
    let Ok(message) = (unsafe { Message::from_bytes(data) }) else { return };
    check_status(&message, bytes);
    check_can_reboot(&message, bytes);
    check_holders(&message);
    check_refusal(message);
}

/// Whether this word stands somewhere in the bytes. The library does not mind which byte comes after it.
fn holds(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

fn check_status(message: &Message, body: &[u8]) {
    let Ok(state) = EngineState::read(message) else { return };
    assert!(!state.needs_reboot() || holds(body, "UPDATE_STATUS_UPDATED_NEED_REBOOT"), "nobody said that: {state:?}");
    let EngineState::Status { operation, new_version } = state else { panic!("a status is a status") };
    check_shown(&new_version, FOREIGN);
    if let Operation::Other(word) = &operation {
        check_shown(word, FOREIGN);
        assert_eq!(Operation::from(word.as_str()), operation, "shown and read back");
    }
}

fn check_can_reboot(message: &Message, body: &[u8]) {
    match CanReboot::read(message) {
        Ok(CanReboot::Yes) => assert!(holds(body, "yes"), "nobody said yes"),
        Ok(CanReboot::Inhibited(word) | CanReboot::No(word)) => check_shown(&word, FOREIGN),
        Err(_) => {}
    }
}

fn check_holders(message: &Message) {
    for modes in [&["block"][..], &["block", "block-weak"]] {
        if let Ok(words) = holders(message, modes) {
            check_shown(&words, FOREIGN + 20);
        }
    }
}

fn check_refusal(message: Message) {
    match RebootReply::from(zbus::Error::from(message)) {
        RebootReply::Accepted => panic!("a failure is no consent"),
        RebootReply::InProgress => {}
        RebootReply::Lost(why) | RebootReply::Unreachable(why) => check_shown(&why, FOREIGN),
        RebootReply::Refused { name, message } => {
            check_shown(&name, 255);
            check_shown(&message, FOREIGN);
        }
    }
}
