//! What every story needs.

pub mod broker;
pub mod by_hand;
pub mod catalog;
pub mod client;
pub mod disk;
pub mod git;
pub mod process;
pub mod upstream;

use std::path::{Path, PathBuf};

use sqlx::{ConnectOptions as _, SqliteConnection, sqlite::SqliteConnectOptions};

pub use broker::TestBroker;
pub use catalog::FixtureCatalog;
pub use client::{Era, TestClient};
pub use process::BrokerProcess;

/// The database in a data folder, opened beside the broker.
pub async fn database(data: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(data.join("broker.sqlite"));
    options.connect().await.expect("the database can be opened")
}

/// The Docker catalog, where the folder with the large data is known; says so where it is not.
pub fn docker_catalog() -> Option<PathBuf> {
    let path = std::env::var_os("MCP_BROKER_TEST_DATA").map(|folder| Path::new(&folder).join("docker-mcp.yaml"));
    match path.filter(|path| path.exists()) {
        Some(path) => Some(path),
        None => {
            eprintln!("SKIPPED: MCP_BROKER_TEST_DATA names no folder with docker-mcp.yaml");
            None
        }
    }
}
