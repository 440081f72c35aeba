//! Copying the database while it is used, and looking whether it is whole.

use std::path::Path;

use sqlx::Row as _;

use super::{Store, StoreError};

/// Problems that are told of one database.
const PROBLEMS_MAX: i64 = 20;

impl Store {
    /// Writes a copy of the whole database, as it is at one instant, to a file that must not exist. Nobody waits for it.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or not be written there.
    pub async fn copy_to(&self, file: &Path) -> Result<(), StoreError> {
        // The name reaches SQLite as a value, so it may hold anything.
        sqlx::query("VACUUM INTO ?").bind(file.display().to_string()).execute(self.readers()).await?;
        Ok(())
    }

    /// What SQLite finds wrong with the database; nothing if it is whole.
    ///
    /// # Errors
    ///
    /// When it cannot be read at all.
    pub async fn problems(&self) -> Result<Vec<String>, StoreError> {
        let mut problems = Vec::new();
        for row in sqlx::query("SELECT integrity_check FROM pragma_integrity_check LIMIT ?")
            .bind(PROBLEMS_MAX)
            .fetch_all(self.readers())
            .await?
        {
            problems.push(row.try_get::<String, _>(0)?);
        }
        for row in sqlx::query("SELECT \"table\", parent FROM pragma_foreign_key_check LIMIT ?")
            .bind(PROBLEMS_MAX)
            .fetch_all(self.readers())
            .await?
        {
            let (table, parent): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            problems.push(format!("a row of {table} belongs to none of {parent}"));
        }
        problems.retain(|problem| problem != "ok");
        Ok(problems)
    }
}
