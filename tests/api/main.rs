//! Behaviour of the API: one module per verb or promise, through raw requests as clients send them.

mod apply;
mod create;
mod delete;
mod discovery;
mod identity;
mod list;
mod patch;
mod update;
mod watch;
