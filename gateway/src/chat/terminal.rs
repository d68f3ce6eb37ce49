//! Lines in, lines out: with line editing on a terminal, plain where stdin is a pipe.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender};
use std::thread;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use rustyline::{DefaultEditor, ExternalPrinter};

use super::client::Event;

/// Longest line: the largest payload a gateway may be set to allow, and a name.
const LINE_BYTES_MAX: u64 = (1 << 20) + 512;

/// The editor asks the terminal to mark pasted text, and takes it back only when a line ends.
const END_BRACKETED_PASTE: &str = "\x1b[?2004l";

/// Where lines are printed.
pub(super) struct Terminal {
    printer: Option<Box<dyn ExternalPrinter>>,
    /// As the terminal was before line editing changed it.
    before: Option<Termios>,
}

impl Terminal {
    /// Starts the thread that reads lines into `events`, one for each of `credits`.
    pub(super) fn start(events: SyncSender<Event>, credits: Receiver<()>) -> io::Result<Terminal> {
        let thread = thread::Builder::new().name("iris-chat-lines".to_owned());
        if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
            thread.spawn(move || read_plain(&events, &credits))?;
            return Ok(Terminal {
                printer: None,
                before: None,
            });
        }
        let before = tcgetattr(io::stdin()).ok();
        let mut editor = DefaultEditor::new().map_err(io::Error::other)?;
        let printer: Box<dyn ExternalPrinter> =
            Box::new(editor.create_external_printer().map_err(io::Error::other)?);
        thread.spawn(move || read_edited(editor, &events, &credits))?;
        Ok(Terminal {
            printer: Some(printer),
            before,
        })
    }

    /// Whether a person sits there, rather than a pipe.
    pub(super) fn is_interactive(&self) -> bool {
        self.printer.is_some()
    }

    /// Prints a line; when it returns, the line is with the terminal or the pipe.
    pub(super) fn print(&mut self, line: &str) -> io::Result<()> {
        match &mut self.printer {
            Some(printer) => printer.print(format!("{line}\n")).map_err(io::Error::other),
            None => {
                let mut stdout = io::stdout().lock();
                writeln!(stdout, "{line}")?;
                stdout.flush()
            }
        }
    }
}

impl Drop for Terminal {
    /// The editing thread may still wait for a key, with the terminal in raw mode.
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // At the end of the process there is nothing to do about a terminal that is gone.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
            let _ = writeln!(io::stdout(), "{END_BRACKETED_PASTE}");
        }
    }
}

fn read_edited(mut editor: DefaultEditor, events: &SyncSender<Event>, credits: &Receiver<()>) {
    while credits.recv().is_ok() {
        // Ctrl-C and Ctrl-D end the input like any error of the terminal.
        let Ok(line) = editor.readline("> ") else {
            break;
        };
        // A line that cannot be remembered can still be sent.
        let _ = editor.add_history_entry(&line);
        if events.send(Event::Line(line)).is_err() {
            return;
        }
    }
    let _ = events.send(Event::InputEnded);
}

fn read_plain(events: &SyncSender<Event>, credits: &Receiver<()>) {
    let mut stdin = io::stdin().lock();
    while credits.recv().is_ok() {
        let mut line = Vec::new();
        let read = stdin
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line);
        let whole = line.ends_with(b"\n") || (line.len() as u64) < LINE_BYTES_MAX;
        let event = match read {
            Ok(len) if len > 0 && whole => Event::Line(String::from_utf8_lossy(&line).into_owned()),
            Ok(len) if len > 0 => {
                Event::InputFailed("a line is longer than any message may be".to_owned())
            }
            Ok(_) => Event::InputEnded,
            Err(error) => Event::InputFailed(error.to_string()),
        };
        let more = matches!(event, Event::Line(_));
        if events.send(event).is_err() || !more {
            return;
        }
    }
}

/// Text of a peer, harmless to a terminal: control characters, and those that turn the writing
/// direction, are shown as escapes. A message cannot move the cursor or pretend to be another line.
pub(super) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_command_the_terminal() {
        assert_eq!(printable(b"plain \xc5\xbe"), "plain ž");
        assert_eq!(
            printable(b"\x1b[2Jgone\r\nmallory: hi\x9b"),
            "\\u{1b}[2Jgone\\r\\nmallory: hi\u{fffd}"
        );
        assert_eq!(
            printable("\u{202e}abc\u{9b}".as_bytes()),
            "\\u{202e}abc\\u{9b}"
        );
    }
}
