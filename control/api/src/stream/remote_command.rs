//! Exec and attach: the streams of a process, and how it ended.
//!
//! | channel | 0 | 1 | 2 | 3 | 4 |
//! |---|---|---|---|---|---|
//! | stream type | stdin | stdout | stderr | error | resize |
//!
//! The API names them `stdin`, `stdout`, `stderr` in a query, a kubelet `input`, `output`, `error`.

use serde::Deserialize;
use serde_json::{Value, json};

/// The versions spoken over SPDY (`X-Stream-Protocol-Version`); those from the fourth carry a Status.
pub const SPDY_PROTOCOLS: &[&str] = &[
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
];

/// Which streams there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// The client sends.
    pub stdin: bool,
    /// The process's output.
    pub stdout: bool,
    /// The process's errors; with a terminal they are part of its output.
    pub stderr: bool,
    /// A terminal.
    pub tty: bool,
}

impl Streams {
    /// The streams that there will be.
    ///
    /// # Errors
    /// None was asked for.
    pub fn checked(self) -> Result<Self, &'static str> {
        if !self.stdin && !self.stdout && !self.stderr {
            return Err("you must specify at least 1 of stdin, stdout, stderr");
        }
        let stderr = self.stderr && !self.tty;
        Ok(Self { stderr, ..self })
    }

    /// The same as parameters of a kubelet.
    #[must_use]
    pub fn kubelet_query(self) -> Vec<(&'static str, &'static str)> {
        let all = [
            ("input", self.stdin),
            ("output", self.stdout),
            ("error", self.stderr),
            ("tty", self.tty),
        ];
        let given = all.into_iter().filter(|(_, given)| *given);
        given.map(|(name, _)| (name, "1")).collect()
    }
}

/// A size of a terminal, as the resize channel carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Success,
    /// The process ended with this code, not 0.
    Exited(i32),
    /// It could not be carried out, or not to the end.
    Failed(String),
}

impl Outcome {
    /// What the error channel says: a Status, or text in the versions that have none.
    #[must_use]
    pub fn message(&self, has_status: bool) -> String {
        if has_status {
            return self.status().to_string();
        }
        match self {
            Self::Success => String::new(),
            Self::Exited(code) => non_zero(*code),
            Self::Failed(why) => why.clone(),
        }
    }

    fn status(&self) -> Value {
        match self {
            Self::Success => json!({"metadata": {}, "status": "Success"}),
            Self::Exited(code) => json!({
                "metadata": {}, "status": "Failure", "message": non_zero(*code),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failed(why) => json!({
                "metadata": {}, "status": "Failure",
                "message": format!("Internal error occurred: {why}"), "reason": "InternalError",
                "details": {"causes": [{"message": why}]}, "code": 500,
            }),
        }
    }
}

fn non_zero(code: i32) -> String {
    format!("command terminated with non-zero exit code: exit status {code}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_one_stream_is_needed_and_a_terminal_has_no_stderr() {
        assert!(Streams::default().checked().is_err());
        let asked = Streams {
            stdout: true,
            stderr: true,
            tty: true,
            stdin: false,
        };
        let streams = asked.checked().unwrap();
        assert_eq!(streams.kubelet_query(), [("output", "1"), ("tty", "1")]);
    }

    #[test]
    fn ends_are_told_as_status_or_text() {
        assert_eq!(Outcome::Success.message(false), "");
        let text = r#"{"metadata":{},"status":"Success"}"#;
        assert_eq!(Outcome::Success.message(true), text);
        let status: Value = serde_json::from_str(&Outcome::Exited(3).message(true)).unwrap();
        assert_eq!(status["details"]["causes"][0]["message"], "3");
        assert_eq!(Outcome::Failed("x".into()).message(false), "x");
    }

    #[test]
    fn sizes_are_read_as_go_writes_them() {
        let size: TerminalSize = serde_json::from_str(r#"{"Width":80,"Height":24}"#).unwrap();
        assert_eq!((size.width, size.height), (80, 24));
    }
}
