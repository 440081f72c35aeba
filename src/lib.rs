//! One MCP endpoint through which an agent finds, adds, configures, uses and drops MCP servers in the middle of a
//! conversation.
//!
//! ```text
//! main → cli → app ┬→ http ─────→ endpoint → session → tools::dispatch ┬→ catalog    → catalog-index (tantivy)
//!                  │  unix socket ┘                                    ├→ supervisor → docker | process | remote
//!                  │  (stdio, commands)                                └→ audit → store → migrations/
//!                  └→ lifecycle, telemetry, features, secrets
//! ```
//!
//! A client's message enters through [`http`] (or, from `mcp-broker stdio`, the unix socket), which knows who it is from.
//! [`endpoint`] is the MCP server that one client is connected to; it turns a request into a call. [`tools`] is the one
//! door: it opens the audit record, routes the call to a management tool or to a server's instance, and closes the record
//! before the answer leaves. [`session`] says which servers a client has; [`supervisor`] runs them.
//!
//! `ARCHITECTURE.md` has the map, what must hold, and three walks through the code.
#![allow(deprecated, reason = "sampling, roots and logging are passed on for as long as clients and servers use them")]

pub mod app;
pub mod audit;
pub mod caller;
pub mod catalog;
pub mod cli;
pub mod clients;
pub mod clock;
pub mod codemode;
pub mod compose;
pub mod config;
pub mod endpoint;
pub mod features;
pub mod http;
pub mod ids;
pub mod lifecycle;
mod mcp_headers;
pub mod memory;
pub mod profiles;
mod schema;
pub mod secrets;
pub mod session;
pub mod store;
pub mod supervisor;
pub mod telemetry;
pub mod tools;
