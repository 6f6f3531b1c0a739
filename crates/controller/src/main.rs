//! The `reboot-controller` binary: see the library of the same name.

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    reboot_controller::run::run(reboot_controller::args::parse()).await
}
