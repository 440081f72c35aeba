//! What a client is told when a request cannot be served at all.

use rmcp::model::{ErrorCode, ErrorData, PaginatedRequestParams};

use crate::session::SessionsError;

#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
pub(super) fn unavailable(error: crate::store::StoreError) -> ErrorData {
    tracing::error!(error = %crate::supervisor::upstream::chain(&error), "the database does not answer");
    ErrorData::internal_error("the broker's database does not answer: see its log", None)
}

pub(super) fn session_error(error: SessionsError) -> ErrorData {
    match error {
        SessionsError::TooMany { .. }
        | SessionsError::NameTaken { .. }
        | SessionsError::InvalidName
        | SessionsError::InvalidLabel
        | SessionsError::InvalidTtl { .. }
        | SessionsError::Ended => ErrorData::new(ErrorCode::INVALID_REQUEST, error.to_string(), None),
        SessionsError::Unfinished => ErrorData::internal_error(error.to_string(), None),
        SessionsError::Store(error) => unavailable(error),
        SessionsError::Audit(error) => {
            tracing::error!(error = %crate::supervisor::upstream::chain(&error), "the audit log cannot be written");
            ErrorData::internal_error("nothing was done, because it could not be recorded", None)
        }
    }
}

/// Lists are given whole; there is no second page to ask for.
pub(super) fn only_page(params: Option<&PaginatedRequestParams>) -> Result<(), ErrorData> {
    match params.and_then(|params| params.cursor.as_deref()) {
        None | Some("") => Ok(()),
        Some(_) => Err(ErrorData::invalid_params("this cursor was not given out: ask without one", None)),
    }
}

pub(super) fn wrong_kind() -> ErrorData {
    ErrorData::internal_error("the server answered with another kind of result than was asked for", None)
}
