//! Stories: the real broker, driven by real clients, against servers that behave and servers that do not.
//!
//! Each file is one subject. `support` has the broker on a port of its own with a data folder of its own, clients of both
//! eras, and the fixture server (`tests/fixture`), which does what servers do wrong when its environment tells it to.
#![allow(deprecated, reason = "sampling, roots and logging are passed on, so they are tested")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on panics")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]
#![allow(unreachable_pub, reason = "nothing here is reached from outside")]
#![allow(clippy::disallowed_methods, reason = "a test is not the broker")]

mod support;

mod answers;
mod audit;
mod awkward_http;
mod chaos;
mod clients;
mod code_mode;
mod command_line;
mod compose;
mod containers;
mod conversation;
mod damaged_storage;
mod doors;
mod examples;
mod features;
mod git_servers;
mod hostile_scripts;
mod isolation;
mod kill;
mod official_clients;
mod operator;
mod plain_calls;
mod profiles;
mod programs;
mod proxy;
mod real_servers;
mod remote;
mod scripts;
mod session_by_code;
mod session_commands;
mod sessions;
mod sources;
mod standard_streams;
mod troubled_servers;
mod troubled_storage;
mod workers;
