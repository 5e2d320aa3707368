//! `test -d|-e|-f|-s PATH`: ends with 0 if the path is a directory, there, a file, or not empty; else with 1.
//!
//! The part of POSIX' `test` that looks at files; `kubectl cp` asks it where to unpack.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [option @ ("-d" | "-e" | "-f" | "-s"), path] = arguments.as_slice() else {
        eprintln!("test: usage: test -d|-e|-f|-s PATH");
        return ExitCode::from(2);
    };
    let found = std::fs::metadata(path).is_ok_and(|found| match *option {
        "-d" => found.is_dir(),
        "-f" => found.is_file(),
        "-s" => found.len() > 0,
        _ => true,
    });
    ExitCode::from(u8::from(!found))
}
