//! The line discipline of a terminal, for programs that have none: what a kernel's tty does between keyboard, screen and
//! program.
//!
//! ```text
//!   keys ─► line being edited ─ Enter ─► what the program reads
//!             └─ echo ─► screen ◄─ "\n" as "\r\n" ◄─ what the program writes
//! ```
//!
//! | key | does |
//! |---|---|
//! | Enter | hands the line over, with a newline |
//! | Backspace, Ctrl-W, Ctrl-U | erase a character, a word, the line |
//! | Ctrl-D | hands the line over as it is; with an empty one, ends the input |
//! | Ctrl-C, Ctrl-\ | ends the program |

/// Longest line that is edited; more keys are not taken, as by a kernel.
const MAX_LINE: usize = 4095;

/// Exit code of a program ended by Ctrl-C: what a shell shows for SIGINT.
const INTERRUPTED: i32 = 130;
/// The same for Ctrl-\ and SIGQUIT.
const QUIT: i32 = 131;

/// A terminal's state: the line that is being edited.
#[derive(Debug, Default)]
pub(super) struct Terminal {
    line: Vec<u8>,
}

/// What some keys led to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Typed {
    /// What the program is to read.
    pub(super) input: Vec<u8>,
    /// What is to be shown.
    pub(super) echo: Vec<u8>,
    /// The program's input is at its end.
    pub(super) end: bool,
    /// The program is to be ended, with this exit code. Keys after that are not looked at.
    pub(super) signal: Option<i32>,
}

impl Terminal {
    /// Takes keys as a client in raw mode sends them.
    pub(super) fn typed(&mut self, keys: &[u8]) -> Typed {
        let mut typed = Typed::default();
        for key in keys {
            match key {
                b'\r' | b'\n' => {
                    typed.input.append(&mut self.line);
                    typed.input.push(b'\n');
                    typed.echo.extend(b"\r\n");
                }
                0x03 | 0x1c => {
                    let (name, code): (&[u8], _) = match key {
                        0x03 => (b"^C\r\n", INTERRUPTED),
                        _ => (b"^\\\r\n", QUIT),
                    };
                    typed.echo.extend(name);
                    typed.signal = Some(code);
                    return typed;
                }
                0x04 if self.line.is_empty() => {
                    typed.end = true;
                    return typed;
                }
                0x04 => typed.input.append(&mut self.line),
                0x08 | 0x7f => self.erase(1, &mut typed.echo),
                0x15 => self.erase(usize::MAX, &mut typed.echo),
                0x17 => self.erase(self.last_word(), &mut typed.echo),
                _ if self.line.len() >= MAX_LINE => {}
                b'\t' | 0x20.. => {
                    self.line.push(*key);
                    typed.echo.push(*key);
                }
                // Shown the way a terminal shows what it can't.
                _ => {
                    self.line.push(*key);
                    typed.echo.extend([b'^', key + b'@']);
                }
            }
        }
        typed
    }

    /// Characters from the begin of the last word to the end of the line.
    fn last_word(&self) -> usize {
        let line = String::from_utf8_lossy(&self.line);
        let word = line.trim_end();
        let begin = word.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        line.get(begin..).unwrap_or_default().chars().count()
    }

    /// Takes back so many characters at most.
    fn erase(&mut self, characters: usize, echo: &mut Vec<u8>) {
        for _ in 0..characters {
            // The bytes of one character of UTF-8, last first.
            let mut last = self.line.pop();
            let control = last.is_some_and(|byte| byte < 0x20 && byte != b'\t');
            while last.is_some_and(|byte| byte & 0xc0 == 0x80) {
                last = self.line.pop();
            }
            if last.is_none() {
                return;
            }
            for _ in 0..if control { 2 } else { 1 } {
                echo.extend(b"\x08 \x08");
            }
        }
    }
}

/// What is shown of a program's output.
pub(super) fn shown(output: &[u8]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(output.len() + output.len() / 16);
    for byte in output {
        if *byte == b'\n' {
            shown.push(b'\r');
        }
        shown.push(*byte);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_edit_a_line_until_it_is_handed_over() {
        for (keys, input, echo) in [
            ("ls\r", "ls\n", "ls\r\n"),
            ("lx\x7fs\n", "ls\n", "lx\x08 \x08s\r\n"),
            ("\x7fa\r", "a\n", "a\r\n"),
            ("ü\x7fo\r", "o\n", "ü\x08 \x08o\r\n"),
            ("\x01\x7f\r", "\n", "^A\x08 \x08\x08 \x08\r\n"),
            ("ab\x15c\r", "c\n", "ab\x08 \x08\x08 \x08c\r\n"),
            (
                "a bc \x17d\r",
                "a d\n",
                "a bc \x08 \x08\x08 \x08\x08 \x08d\r\n",
            ),
            ("half\x04", "half", "half"),
            ("not yet", "", "not yet"),
        ] {
            let typed = Terminal::default().typed(keys.as_bytes());
            assert_eq!(String::from_utf8(typed.input).unwrap(), input, "{keys:?}");
            assert_eq!(String::from_utf8(typed.echo).unwrap(), echo, "{keys:?}");
            assert!(!typed.end && typed.signal.is_none());
        }
    }

    #[test]
    fn a_line_may_come_in_pieces_and_is_bounded() {
        let mut terminal = Terminal::default();
        assert!(terminal.typed(b"on").input.is_empty());
        assert_eq!(terminal.typed(b"e\r").input, b"one\n");
        let many = vec![b'x'; 2 * MAX_LINE];
        assert_eq!(terminal.typed(&many).echo.len(), MAX_LINE);
        assert_eq!(terminal.typed(b"\r").input.len(), MAX_LINE + 1);
    }

    #[test]
    fn the_end_and_signals() {
        assert!(Terminal::default().typed(b"\x04x").end);
        let typed = Terminal::default().typed(b"half\x03more\r");
        assert_eq!((typed.signal, typed.input.len()), (Some(130), 0));
        assert_eq!(Terminal::default().typed(b"\x1c").signal, Some(131));
    }

    #[test]
    fn newlines_go_back_to_the_begin_of_the_line() {
        assert_eq!(shown(b"a\nb\n"), b"a\r\nb\r\n");
    }
}
