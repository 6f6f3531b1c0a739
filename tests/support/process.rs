//! Child processes of the tests: logged to a file, signalled by their own pid, gone when their handle is.
//!
//! Each runs in a process group of its own, so that a Ctrl-C in the terminal reaches the test alone and the test ends
//! them in its own order. A test that dies without dropping anything (`kill -9`, a second Ctrl-C) must not leave a
//! control plane behind either: next to each child runs a shell that holds one end of a pipe and kills the child when
//! the other end, ours, closes. (The kernel's own remedy, `PR_SET_PDEATHSIG`, needs `unsafe` code.)

use std::{
    ffi::OsStr,
    fs::File,
    io::Write as _,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// A child process that ends with this handle.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: tokio::process::Child,
    pid: u32,
    guard: Guard,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; its output is appended to the file `log`. Needs a tokio runtime.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("opening {}", log.display()))?;
        let err = out.try_clone().context("duplicating the log's file descriptor")?;
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let program = command.get_program().to_owned();
        let child = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name} ({})", program.to_string_lossy()))?;
        let pid = child.id().with_context(|| format!("{name} has no pid"))?;
        let guard = Guard::over(pid)?;
        Ok(Self { name: name.to_owned(), child, pid, guard, log: log.to_owned() })
    }

    /// The name it was started under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id; reused by the system once the process was waited for.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The file that holds what it wrote.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last `lines` lines of its log; empty when there is none.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let start = text.lines().count().saturating_sub(lines);
        text.lines().skip(start).collect::<Vec<_>>().join("\n")
    }

    /// The processor time that it has used, in user and kernel mode; Linux counts it in steps of 10 ms.
    ///
    /// # Errors
    /// When it has ended, or the system has no `/proc`.
    pub fn cpu(&self) -> Result<Duration> {
        let path = format!("/proc/{}/stat", self.pid);
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        // After the name in parentheses: utime and stime are the 12th and the 13th field (proc_pid_stat(5)).
        let (_, fields) = text.rsplit_once(')').with_context(|| format!("reading {path}"))?;
        let ticks: Result<u64, std::num::ParseIntError> =
            fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum();
        let ticks = ticks.with_context(|| format!("reading {path}"))?;
        Ok(Duration::from_millis(ticks.saturating_mul(10)))
    }

    /// Its resident memory in bytes.
    ///
    /// # Errors
    /// When it has ended, or the system has no `/proc`.
    pub fn rss(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid);
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS: it has ended")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().context("reading VmRSS")?;
        Ok(kib * 1024)
    }

    /// How it ended, or `None` while it runs.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.try_wait().with_context(|| format!("asking whether {} ended", self.name))?;
        if status.is_some() {
            self.guard.release();
        }
        Ok(status)
    }

    /// Waits until it ends by itself or by a signal.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let status = tokio::time::timeout(limit, self.child.wait())
            .await
            .with_context(|| format!("{} still runs after {limit:?}", self.name))?
            .with_context(|| format!("waiting for {}", self.name))?;
        self.guard.release();
        Ok(status)
    }

    /// Asks it to end (SIGTERM); `wait` tells when it did.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM).map(drop)
    }

    /// Stops it in its tracks (SIGSTOP): sockets stay open, nothing answers. It stands still when this returns.
    pub fn pause(&mut self) -> Result<()> {
        let pid = self.signal(Signal::STOP)?;
        // The signal is on its way only, and a SIGTERM could overtake it. Whoever awaits the child hears of its end as
        // well (`NOWAIT`).
        let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let status = waitid(WaitId::Pid(pid), options).with_context(|| format!("waiting until {} stops", self.name))?;
        ensure!(status.is_some_and(|status| status.stopped()), "{} has ended instead of stopping", self.name);
        Ok(())
    }

    /// Lets it go on after [`Process::pause`].
    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::CONT).map(drop)
    }

    /// Ends it at once (SIGKILL) and waits until it is gone; no error when it already was.
    #[expect(clippy::disallowed_methods, reason = "a destructor, which needs this too, cannot await")]
    pub fn kill(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.child.start_kill().with_context(|| format!("killing {}", self.name))?;
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "{} (pid {}) survives SIGKILL", self.name, self.pid);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn signal(&mut self, signal: Signal) -> Result<Pid> {
        ensure!(self.ended()?.is_none(), "{} has ended, {signal:?} cannot reach it", self.name);
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let pid = pid.with_context(|| format!("{} is no process id", self.pid))?;
        kill_process(pid, signal).with_context(|| format!("sending {signal:?} to {}", self.name))?;
        Ok(pid)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A destructor has nobody to tell; the guard still kills what could not be killed here.
        if self.kill().is_err() {
            self.guard.fire();
        }
    }
}

/// Whether a process was ended by this signal.
pub fn killed_by(status: ExitStatus, signal: i32) -> bool {
    status.signal() == Some(signal)
}

/// Runs a short command to its end and returns what it printed.
///
/// # Errors
/// When it cannot be started or fails; its standard error is in the text.
pub fn output<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<String> {
    let output = Command::new(program).args(args).output().with_context(|| format!("starting {program}"))?;
    ensure!(output.status.success(), "{program} failed ({}): {}", output.status, lossy(&output.stderr));
    Ok(lossy(&output.stdout))
}

/// The shell that outlives us for a moment; see the module's text.
#[derive(Debug)]
struct Guard(Option<std::process::Child>);

impl Guard {
    fn over(pid: u32) -> Result<Self> {
        let shell = Command::new("sh")
            .args(["-c", r#"read -r released || kill -s KILL "$1" 2>/dev/null"#, "sh", &pid.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting the shell that watches over a child process")?;
        Ok(Self(Some(shell)))
    }

    /// The child is gone and its pid may be given to another process: nothing may be killed any more.
    fn release(&mut self) {
        self.end(b"released\n");
    }

    /// Kills the child the way the death of this process would.
    fn fire(&mut self) {
        self.end(b"");
    }

    fn end(&mut self, word: &[u8]) {
        let Some(mut shell) = self.0.take() else { return };
        if let Some(mut stdin) = shell.stdin.take() {
            let _gone_already = stdin.write_all(word);
        }
        let _reaped = shell.wait();
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::scratch::Scratch;

    const LIMIT: Duration = Duration::from_secs(10);

    fn sh(dir: &Scratch, script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::spawn("sh", command, &dir.path().join("log")).unwrap()
    }

    #[tokio::test]
    async fn what_it_writes_is_in_its_log_and_how_it_ended_is_known() {
        let dir = Scratch::new("process").unwrap();
        let mut process = sh(&dir, "echo one; echo two >&2; exit 3");
        assert_eq!(process.wait(LIMIT).await.unwrap().code(), Some(3));
        assert_eq!(process.log_tail(1), "two");
        assert!(process.terminate().is_err(), "a pid that may be somebody else's gets no signal");
    }

    #[tokio::test]
    async fn signals_reach_it() {
        let dir = Scratch::new("process").unwrap();
        let mut process = sh(&dir, "exec sleep 1000");
        process.pause().unwrap();
        process.terminate().unwrap();
        assert!(process.wait(Duration::from_millis(100)).await.is_err(), "it is paused");
        process.resume().unwrap();
        assert!(killed_by(process.wait(LIMIT).await.unwrap(), 15));
        let mut process = sh(&dir, "exec sleep 1000");
        assert!(process.rss().unwrap() > 0);
        assert!(killed_by(process.kill().unwrap(), 9));
        assert!(process.kill().is_ok(), "twice is once");
    }

    #[tokio::test]
    async fn it_dies_when_we_do() {
        let dir = Scratch::new("process").unwrap();
        let mut process = sh(&dir, "exec sleep 1000");
        // What the end of this process does: the pipe to the guard closes without a word.
        process.guard.fire();
        assert!(killed_by(process.wait(LIMIT).await.unwrap(), 9));
    }
}
