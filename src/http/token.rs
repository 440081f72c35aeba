//! The broker's own bearer token: made once, kept in the data folder with mode 0600, never logged.

use std::{
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use crate::ids::Token;

const FILE: &str = "token";

/// A token shorter than this is too easily guessed.
const TOKEN_CHARACTERS_MIN: usize = 24;

/// There is no usable token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("{path} can be read by others (mode {mode:o}): run `chmod 600 {path}`")]
    TooOpen { path: PathBuf, mode: u32 },
    #[error("{path} must hold a token of at least {TOKEN_CHARACTERS_MIN} characters: delete it to have one made")]
    TooShort { path: PathBuf },
    #[error("could not use the token file {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// The token in the data folder; made if there is none.
///
/// # Errors
///
/// When it cannot be read or made, or others can read it.
pub fn load(folder: &Path) -> Result<(Token, PathBuf), TokenError> {
    let path = folder.join(FILE);
    let token = match read(&path) {
        Err(TokenError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => create(&path)?,
        outcome => outcome?,
    };
    Ok((token, path))
}

fn read(path: &Path) -> Result<Token, TokenError> {
    let wrong = |source| TokenError::Io { path: path.to_owned(), source };
    let mode = std::fs::metadata(path).map_err(wrong)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(TokenError::TooOpen { path: path.to_owned(), mode });
    }
    let text = std::fs::read_to_string(path).map_err(wrong)?;
    let token = text.trim();
    if token.chars().count() < TOKEN_CHARACTERS_MIN {
        return Err(TokenError::TooShort { path: path.to_owned() });
    }
    Ok(Token::from(token.to_owned()))
}

fn create(path: &Path) -> Result<Token, TokenError> {
    let wrong = |source| TokenError::Io { path: path.to_owned(), source };
    let token = Token::random();
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(wrong)?;
    writeln!(file, "{}", token.reveal()).map_err(wrong)?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_kept_to_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let (first, path) = load(folder.path()).unwrap();
        assert_eq!(load(folder.path()).unwrap().0.reveal(), first.reveal());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load(folder.path()), Err(TokenError::TooOpen { .. })));
    }

    #[test]
    fn a_token_that_is_easily_guessed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = load(folder.path()).unwrap().1;
        std::fs::write(path, "secret").unwrap();
        assert!(matches!(load(folder.path()), Err(TokenError::TooShort { .. })));
    }
}
