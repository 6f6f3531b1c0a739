//! Where the demo shows itself: on a terminal a picture that is drawn over in place, below lines that stay; anywhere
//! else (a pipe, a CI log) plain lines, one for each change.

use std::{
    env,
    future::Future,
    io::{IsTerminal as _, Result, Write as _, stdout},
    pin::pin,
    time::Duration,
};

use tokio::{
    process::Command,
    time::{Instant, interval, timeout},
};

use crate::line::{Line, Style, duration};

/// The output of this process.
pub(crate) struct Screen {
    began: Instant,
    /// Columns and rows; none where it is no terminal.
    terminal: Option<(usize, usize)>,
    colours: bool,
    /// How many lines of a picture are above the cursor.
    drawn: usize,
}

/// How often a picture is drawn: often enough for tenths of seconds to run.
pub(crate) const TICK: Duration = Duration::from_millis(100);

const SIGN_OF_LIFE: Duration = Duration::from_secs(2);

const SPINNER: [char; 4] = ['|', '/', '-', '\\'];

impl Screen {
    /// Standard output, as it is.
    pub(crate) async fn new() -> Self {
        let dumb = env::var_os("TERM").is_none_or(|kind| kind == "dumb");
        let is_terminal = stdout().is_terminal() && !dumb;
        let colours = is_terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let terminal = is_terminal.then_some((80, 24));
        let mut this = Self { began: Instant::now(), terminal, colours, drawn: 0 };
        this.measure().await;
        this
    }

    /// Since when it shows something.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whether there is a picture.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// Asks for the size of the terminal; what cannot be learned stays as it was.
    pub(crate) async fn measure(&mut self) {
        if self.terminal.is_none() {
            return;
        }
        let size = Command::new("stty").args(["-F", "/dev/tty", "size"]).kill_on_drop(true).output();
        let Ok(Ok(output)) = timeout(Duration::from_secs(1), size).await else { return };
        let text = String::from_utf8_lossy(&output.stdout);
        let mut numbers = text.split_whitespace().filter_map(|word| word.parse().ok()).filter(|&number| number > 0);
        if let (Some(rows), Some(columns)) = (numbers.next(), numbers.next()) {
            self.terminal = Some((columns, rows));
        }
    }

    /// Writes a line that stays.
    pub(crate) fn say(&mut self, line: &Line) -> Result<()> {
        let text = self.erased() + &line.render(usize::MAX, self.colours) + "\n";
        write(&text)
    }

    /// Writes what has changed, where there is no picture that shows it.
    pub(crate) fn log(&mut self, change: &str) -> Result<()> {
        if self.is_terminal() {
            return Ok(());
        }
        self.say(&Line::text(format!("{:>6}  {change}", duration(self.elapsed()))))
    }

    /// Draws a picture over the one before; does nothing where there is no terminal.
    pub(crate) fn draw(&mut self, picture: &[Line]) -> Result<()> {
        let Some((columns, rows)) = self.terminal else { return Ok(()) };
        // A picture that does not fit would scroll, and the way back up would no longer be right.
        let picture = &picture[..picture.len().min(rows.saturating_sub(1))];
        let up = if self.drawn > 0 { format!("\x1b[{}F", self.drawn) } else { String::new() };
        let mut text = format!("\x1b[?25l{up}");
        for line in picture {
            text.push_str(&line.render(columns.saturating_sub(1), self.colours));
            text.push_str("\x1b[K\n");
        }
        self.drawn = picture.len();
        write(&(text + "\x1b[J"))
    }

    /// Lets the picture stand where it is; the next one is drawn below.
    pub(crate) fn keep(&mut self) -> Result<()> {
        self.drawn = 0;
        if self.is_terminal() { write("\x1b[?25h") } else { Ok(()) }
    }

    /// Shows that `work` is under way until it is done.
    pub(crate) async fn during<T, E>(
        &mut self,
        what: &str,
        work: impl Future<Output = std::result::Result<T, E>>,
    ) -> std::result::Result<T, E>
    where
        E: From<std::io::Error>,
    {
        self.log(what)?;
        let began = Instant::now();
        // A log needs a sign of life, a terminal something that moves.
        let mut tick = interval(if self.is_terminal() { TICK } else { SIGN_OF_LIFE });
        tick.reset();
        let mut work = pin!(work);
        let mut spin = SPINNER.iter().cycle();
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                _ = tick.tick() => {
                    let mark = format!("  {} ", spin.next().unwrap_or(&' '));
                    let time = duration(began.elapsed());
                    self.draw(&[Line::default().and(Style::Cyan, mark).and(Style::Plain, format!("{what}  {time}"))])?;
                    self.log("...")?;
                }
            }
        };
        if self.is_terminal() && result.is_ok() {
            let time = format!("  {}", duration(began.elapsed()));
            self.say(&Line::default().and(Style::Green, "  ✓ ").and(Style::Plain, what).and(Style::Dim, time))?;
        }
        result
    }

    fn erased(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\x1b[{lines}F\x1b[J"),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _shown = self.keep();
    }
}

fn write(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
