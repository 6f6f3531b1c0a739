//! The `reboot-agent` binary: see the library of the same name.

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    reboot_agent::run::run(reboot_agent::args::parse()).await
}
