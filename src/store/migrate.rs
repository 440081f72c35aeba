//! Bringing a database up to date.

use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use sqlx::{
    Row as _, SqlSafeStr as _, SqliteConnection,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};

use super::OpenStoreError;

/// Every migration there is, in order; the file's number is its version.
const MIGRATIONS: [(i64, &str, &str); 16] = [
    (1, "sessions", include_str!("../../migrations/0001_sessions.sql")),
    (2, "audit", include_str!("../../migrations/0002_audit.sql")),
    (3, "features", include_str!("../../migrations/0003_features.sql")),
    (4, "secrets", include_str!("../../migrations/0004_secrets.sql")),
    (5, "learned surfaces", include_str!("../../migrations/0005_learned_surfaces.sql")),
    (6, "code tools", include_str!("../../migrations/0006_code_tools.sql")),
    (7, "audit records", include_str!("../../migrations/0007_audit_records.sql")),
    (20, "result shapes", include_str!("../../migrations/0020_result_shapes.sql")),
    (40, "learned tools", include_str!("../../migrations/0040_learned_tools.sql")),
    (41, "subscriptions", include_str!("../../migrations/0041_subscriptions.sql")),
    (50, "session ends", include_str!("../../migrations/0050_session_ends.sql")),
    (51, "session entries", include_str!("../../migrations/0051_session_entries.sql")),
    (53, "profiles", include_str!("../../migrations/0053_profiles.sql")),
    (54, "compose consents", include_str!("../../migrations/0054_compose_consents.sql")),
    (55, "session compose", include_str!("../../migrations/0055_session_compose.sql")),
    (56, "merge words later", include_str!("../../migrations/0056_merge_words_later.sql")),
];

/// Brings the database up to date. One that holds something is copied first, to a file beside it; each migration is a
/// transaction, so that an interrupted one is simply taken up again.
pub(super) async fn run(connection: &mut SqliteConnection, path: &Path) -> Result<(), OpenStoreError> {
    let newest = MIGRATIONS.iter().map(|(version, ..)| *version).max().unwrap_or(0);
    let wrong = |source| OpenStoreError::Open { path: path.to_owned(), source };
    let found = version(connection).await.map_err(wrong)?;
    if found > 0 && found < newest {
        let copy = copy_path(path, found);
        keep_copy(connection, &copy).await.map_err(|why| OpenStoreError::Copy { copy, why })?;
    }
    migrator(newest).run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::VersionMissing(found) => OpenStoreError::Newer { path: path.to_owned(), found, known: newest },
        source => OpenStoreError::Migrate { path: path.to_owned(), source },
    })
}

fn migrator(newest: i64) -> Migrator {
    let migrations = MIGRATIONS.into_iter().filter(|(version, ..)| *version <= newest);
    let migrations = migrations.map(|(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
}

/// The newest migration the database has; 0 if it is empty.
async fn version(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    let table = sqlx::query("SELECT 1 FROM sqlite_schema WHERE name = '_sqlx_migrations'");
    if table.fetch_optional(&mut *connection).await?.is_none() {
        return Ok(0);
    }
    let row = sqlx::query("SELECT coalesce(max(version), 0) FROM _sqlx_migrations").fetch_one(connection).await?;
    row.try_get(0)
}

fn copy_path(path: &Path, version: i64) -> PathBuf {
    path.with_extension(format!("sqlite.version-{version}"))
}

/// Copies the database as it is, in place of an older copy of that version.
async fn keep_copy(connection: &mut SqliteConnection, copy: &Path) -> Result<(), String> {
    let unfinished = copy.with_extension("unfinished");
    let _ = std::fs::remove_file(&unfinished);
    // SQLite takes an empty file for a new one; made here, it is nobody else's to read from the beginning on.
    let options = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished);
    options.map_err(|error| error.to_string())?;
    let name = unfinished.display().to_string();
    sqlx::query("VACUUM INTO ?").bind(name).execute(connection).await.map_err(|error| error.to_string())?;
    std::fs::rename(&unfinished, copy).map_err(|error| error.to_string())
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

    #[tokio::test]
    async fn a_database_that_holds_something_is_copied_before_it_is_changed() {
        use std::os::unix::fs::PermissionsExt as _;

        use sqlx::{ConnectOptions as _, Connection as _, sqlite::SqliteConnectOptions};

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broker.sqlite");
        let open = |path: &Path| SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let mut connection = open(&path).connect().await.unwrap();
        migrator(6).run_direct(None, &mut connection, false).await.unwrap();
        let feature = "INSERT INTO features (name, enabled, set_at) VALUES ('dynamic-tools', 0, 0)";
        sqlx::query(feature).execute(&mut connection).await.unwrap();
        run(&mut connection, &path).await.unwrap();
        let newest = version(&mut connection).await.unwrap();
        assert!(newest > 6);
        run(&mut connection, &path).await.unwrap();
        connection.close().await.unwrap();

        let copy = copy_path(&path, 6);
        assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
        let mut kept = open(&copy).connect().await.unwrap();
        assert_eq!(version(&mut kept).await.unwrap(), 6);
        let row = sqlx::query("SELECT enabled FROM features").fetch_one(&mut kept).await.unwrap();
        assert_eq!(row.get::<i64, _>(0), 0);
        assert!(!copy_path(&path, newest).exists(), "what is up to date is not copied");
    }
}
