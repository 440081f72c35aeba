//! Bringing a database up to date.

use std::path::Path;

use sqlx::{
    SqlSafeStr as _, SqliteConnection,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};

use super::OpenStoreError;

/// Every migration there is, in order; the file's number is its version.
const MIGRATIONS: [(i64, &str, &str); 9] = [
    (1, "sessions", include_str!("../../migrations/0001_sessions.sql")),
    (2, "audit", include_str!("../../migrations/0002_audit.sql")),
    (3, "features", include_str!("../../migrations/0003_features.sql")),
    (4, "secrets", include_str!("../../migrations/0004_secrets.sql")),
    (5, "learned surfaces", include_str!("../../migrations/0005_learned_surfaces.sql")),
    (6, "code tools", include_str!("../../migrations/0006_code_tools.sql")),
    (7, "audit records", include_str!("../../migrations/0007_audit_records.sql")),
    (20, "result shapes", include_str!("../../migrations/0020_result_shapes.sql")),
    (40, "learned tools", include_str!("../../migrations/0040_learned_tools.sql")),
];

pub(super) async fn run(connection: &mut SqliteConnection, path: &Path) -> Result<(), OpenStoreError> {
    let migrations = MIGRATIONS
        .into_iter()
        .map(|(version, name, sql)| {
            Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        })
        .collect();
    let migrator = Migrator::with_migrations(migrations);
    migrator.run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::VersionMissing(found) => {
            let known = MIGRATIONS.iter().map(|(version, ..)| *version).max().unwrap_or(0);
            OpenStoreError::Newer { path: path.to_owned(), found, known }
        }
        source => OpenStoreError::Migrate { path: path.to_owned(), source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_migration_file_is_listed() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let files = std::fs::read_dir(folder).unwrap().count();
        assert_eq!(files, MIGRATIONS.len());
        let versions: Vec<i64> = MIGRATIONS.iter().map(|(version, ..)| *version).collect();
        assert!(versions.is_sorted_by(|one, next| one < next), "{versions:?}");
    }
}
