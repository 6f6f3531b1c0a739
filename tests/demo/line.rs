//! Lines of text with colours, cut to the width of the terminal.

/// How a piece of text looks on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// As all text.
    Plain,
    /// What everybody should see.
    Bold,
    /// What is there for completeness.
    Dim,
    /// Good news.
    Green,
    /// Bad news.
    Red,
    /// It waits.
    Yellow,
    /// It is at work.
    Cyan,
}

/// One line, piece by piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line(Vec<(Style, String)>);

impl Line {
    /// A line that is all text.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::default().and(Style::Plain, text)
    }

    /// The line with one piece more.
    pub(crate) fn and(mut self, style: Style, text: impl Into<String>) -> Self {
        self.0.push((style, text.into()));
        self
    }

    /// The line as it is written: at most `width` characters long, with or without colours.
    pub(crate) fn render(&self, width: usize, colours: bool) -> String {
        let length: usize = self.0.iter().map(|(_, text)| text.chars().count()).sum();
        // The last place is for the mark that something was cut off.
        let mut room = if length > width { width.saturating_sub(1) } else { length };
        let mut out = String::new();
        for (style, text) in &self.0 {
            let shown: String = text.chars().take(room).collect();
            room -= shown.chars().count();
            let piece = match style.code().filter(|_| colours && !shown.is_empty()) {
                Some(code) => format!("\x1b[{code}m{shown}\x1b[0m"),
                None => shown,
            };
            out.push_str(&piece);
        }
        if length > width {
            out.push('…');
        }
        out.truncate(out.trim_end().len());
        out
    }
}

impl Style {
    /// The number of the escape sequence.
    fn code(self) -> Option<u8> {
        match self {
            Self::Plain => None,
            Self::Bold => Some(1),
            Self::Dim => Some(2),
            Self::Red => Some(31),
            Self::Green => Some(32),
            Self::Yellow => Some(33),
            Self::Cyan => Some(36),
        }
    }
}

/// A length of time for people: `7.3s`, then `2m05s`.
pub(crate) fn duration(time: std::time::Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 100 { format!("{:.1}s", time.as_secs_f64()) } else { format!("{}m{:02}s", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_line_is_cut_by_what_is_seen_of_it() {
        let line = Line::text("node-1 ").and(Style::Green, "done ✓").and(Style::Plain, " and well");
        assert_eq!(line.render(80, false), "node-1 done ✓ and well");
        assert_eq!(line.render(22, false), "node-1 done ✓ and well");
        assert_eq!(line.render(21, false), "node-1 done ✓ and we…");
        assert_eq!(line.render(10, false), "node-1 do…");
        assert_eq!(line.render(10, true), "node-1 \x1b[32mdo\x1b[0m…");
        assert_eq!(line.render(0, true), "…");
        assert_eq!(Line::text("a  ").render(80, false), "a");
    }

    #[test]
    fn times_are_short() {
        for (millis, expected) in [(0, "0.0s"), (7_340, "7.3s"), (99_900, "99.9s"), (125_000, "2m05s")] {
            assert_eq!(duration(Duration::from_millis(millis)), expected);
        }
    }
}
