//! How many files the process may hold open.
//!
//! A NodePort connection, a tunnel and an open file of a guest each cost a descriptor. The soft limit is
//! 1024 on most systems, for the sake of programs that use `select`. Whether to raise it is the program's own choice: an
//! agent that is a part of one leaves it alone.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of the process to its hard limit.
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::debug!(?current, ?maximum, "the limit of open files is raised"),
        Err(error) => tracing::warn!(%error, ?current, ?maximum, "the limit of open files stays"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        raise_limit();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }
}
