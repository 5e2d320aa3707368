//! What the user sees: plain lines, coloured only on a terminal that wants colours.

use std::io::{IsTerminal, Write};

/// Whether to colour what goes to `stream`.
pub(crate) fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Prints an error to standard error.
pub(crate) fn error(text: &str) {
    let stderr = std::io::stderr();
    let prefix = if colours(&stderr) {
        "\x1b[1;31merror:\x1b[0m"
    } else {
        "error:"
    };
    // Nothing is left to tell a user whose standard error is closed.
    let _ = writeln!(stderr.lock(), "{prefix} {text}");
}

/// Prints a line to standard output.
pub(crate) fn line(text: &str) {
    // A reader that went away (`| head`) is no error.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints a line of progress to standard error, with a mark.
pub(crate) fn step(text: &str) {
    let stderr = std::io::stderr();
    let mark = if colours(&stderr) {
        "\x1b[32m✓\x1b[0m"
    } else {
        "-"
    };
    let _ = writeln!(stderr.lock(), "{mark} {text}");
}
