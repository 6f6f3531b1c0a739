//! scratch
use clap::Parser;
use reboot_controller::{elect::{Candidate, Leadership}, lease::Terms};
use reboot_runtime::{args, client, log, probes::{Listener, Probes}, shutdown::{Shutdown, Signals}, supervise::Tasks, events::{Events, EventNote}};
use tokio::sync::oneshot;
#[derive(Parser)]
struct A { #[command(flatten)] l: args::LogArgs, #[command(flatten)] c: args::ClientArgs, #[command(flatten)] p: args::ProbeArgs, #[arg(long)] id: String, #[arg(long, value_parser = args::duration, default_value="0s")] stop_takes: std::time::Duration }
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let a: A = args::parse("REBOOT_CONTROLLER");
    log::init(&a.l)?;
    let signals = Signals::listen()?;
    let shutdown = Shutdown::new();
    let client = client::connect(&a.c, "elect-try/0").await?;
    let listener = Listener::bind(a.p.listen).await?;
    let probes = Probes::default();
    let live = probes.liveness.clone();
    let ready = probes.readiness.handle("lease");
    let (events, writer) = Events::new(client.clone(), "elect-try", &a.id);
    let (cand, mut lead) = Candidate::new(client, "reboot-operator", &a.id, Terms::STANDARD);
    let (tx, rx) = oneshot::channel();
    let mut tasks = Tasks::new(shutdown.clone());
    tasks.spawn_service("probes", listener.serve(probes, shutdown.clone()));
    tasks.spawn("events", writer);
    tasks.spawn("lease", cand.run(shutdown.clone(), rx));
    let sd = shutdown.clone();
    tasks.spawn("main", async move {
        loop { tokio::select! {
            () = live.turn() => {}
            c = lead.changed() => { c?; ready.set(true); let l = lead.borrow().clone();
                if l == Leadership::Leader { events.publish(EventNote { object: k8s_openapi::api::core::v1::ObjectReference { kind: Some("Node".into()), name: Some("n1".into()), uid: Some("n1".into()), ..Default::default() }, warning: false, reason: "Leading".into(), action: "Lead".into(), note: "x".repeat(2000) }); } }
            () = sd.requested() => break,
        } }
        tokio::time::sleep(a.stop_takes).await;
        drop(tx);
        Ok(())
    });
    tasks.run(signals).await
}
