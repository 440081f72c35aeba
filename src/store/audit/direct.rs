//! Events, committed on the thread of whoever waits for them.
//!
//! Every connection of sqlx has a thread of its own, and the way there and back takes longer than the commit of one event:
//! a call would wait for it twice. This connection has none. It only ever adds a few events, and never copies the
//! write-ahead log into the database, which waits for the disk.

use std::{path::Path, sync::Arc, time::Duration};

use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};

use super::{
    Event,
    append::{CLOSE_ONE, Chain, Link, OPEN_ONE},
    integer,
};
use crate::ids::{CallId, SessionId};

/// What this connection may keep of the database in memory, as SQLite's `cache_size` has it: in KiB, if negative.
const CACHE: &str = "-256";

/// A connection to write a few events with.
pub(in crate::store) struct Direct {
    connection: Connection,
}

impl Direct {
    /// Opens a second connection to a database that is there already, in write-ahead mode. A commit survives the process.
    pub(in crate::store) fn open(path: &Path) -> rusqlite::Result<Self> {
        let connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        // Another program that writes is waited for elsewhere.
        connection.busy_timeout(Duration::ZERO)?;
        for (pragma, value) in
            [("synchronous", "NORMAL"), ("foreign_keys", "ON"), ("wal_autocheckpoint", "0"), ("cache_size", CACHE)]
        {
            connection.pragma_update(None, pragma, value)?;
        }
        Ok(Self { connection })
    }

    /// Commits events together. When that fails none of them is in the log, and the chain is where it was.
    pub(in crate::store) fn append(&mut self, chain: &mut Chain, events: &[Arc<Event>]) -> rusqlite::Result<()> {
        chain.append_by(events, |links| {
            if let [link] = links {
                return insert(&self.connection, link);
            }
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            links.iter().try_for_each(|link| insert(&transaction, link))?;
            transaction.commit()
        })
    }
}

fn insert(connection: &Connection, link: &Link<'_, Event>) -> rusqlite::Result<()> {
    match link.event {
        Event::Opened(event) => connection.prepare_cached(&OPEN_ONE)?.execute(params![
            link.seq,
            event.record.as_bytes(),
            event.at.as_microsecond(),
            event.parent.as_ref().map(CallId::as_bytes),
            event.session.as_ref().map(SessionId::as_str),
            event.principal,
            event.client,
            event.kind.as_ref(),
            event.server,
            event.name,
            event.arguments,
            integer(event.arguments_bytes),
            event.arguments_hash,
            event.trace,
            link.hash,
        ])?,
        Event::Closed(event) => connection.prepare_cached(&CLOSE_ONE)?.execute(params![
            link.seq,
            event.record.as_bytes(),
            event.at.as_microsecond(),
            integer(event.duration_micros),
            event.status.as_ref(),
            event.error,
            event.result,
            integer(event.result_bytes),
            event.result_hash,
            link.hash,
        ])?,
    };
    Ok(())
}
