//! What a query filters by, and which of its filters leads.
//!
//! SQLite knows how many rows an index has for a key on average, and not for which keys there are few. So a query with more
//! than one filter is led by the one that matches fewest, which is found by counting up to a bound; if all match many, the
//! newest records are looked at until enough of them match.

use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::{integer, records::Query};
use crate::store::{Store, StoreError, micros};

/// A filter leads if it matches fewer records than this.
const RARE: i64 = 5_000;

const COUNT: &str = "SELECT count(*) AS n FROM (SELECT 1 FROM ";

/// Client programs whose name one filter may stand for.
const CLIENTS_MAX: usize = 100;

/// One condition on a row of `audit_records`, called `r`.
enum Filter {
    /// A column's value.
    Equal(&'static str, String),
    Open,
    Clients(Vec<String>),
    Since(i64),
    Until(i64),
    SlowerThan(i64),
    Roots,
}

impl Filter {
    /// The index that finds what it matches; none if what it matches is never few, or in order of time anyway.
    fn index(&self) -> Option<&'static str> {
        match self {
            Self::Equal("r.session", _) => Some("audit_records_by_session"),
            Self::Equal("r.server", _) => Some("audit_records_by_server"),
            Self::Equal("r.name", _) => Some("audit_records_by_name"),
            Self::Equal("r.principal", _) => Some("audit_records_by_principal"),
            Self::Equal("r.status", _) => Some("audit_records_by_status"),
            Self::Open => Some("audit_records_open"),
            Self::Clients(_) => Some("audit_records_by_client"),
            Self::SlowerThan(_) => Some("audit_records_by_duration"),
            Self::Equal(..) | Self::Since(_) | Self::Until(_) | Self::Roots => None,
        }
    }

    /// Appends the condition after an `AND`. One that does not lead is kept from having SQLite sort all it matches.
    fn push(&self, sql: &mut QueryBuilder<Sqlite>, leads: bool) {
        sql.push(" AND ");
        match self {
            Self::Equal(column, value) => {
                // There are few kinds, and no index of them.
                sql.push(if *column == "r.kind" { "+" } else { "" }).push(*column).push(" = ").push_bind(value.clone())
            }
            Self::Open => sql.push("r.closed IS NULL"),
            Self::Clients(clients) => {
                let in_order = leads || clients.len() == 1;
                sql.push(if in_order { "r.client IN (" } else { "+r.client IN (" });
                let mut list = sql.separated(", ");
                for client in clients {
                    list.push_bind(client.clone());
                }
                sql.push(")")
            }
            Self::Since(at) => sql.push("r.opened_at >= ").push_bind(*at),
            Self::Until(at) => sql.push("r.opened_at < ").push_bind(*at),
            Self::SlowerThan(least) => {
                sql.push(if leads { "r.duration >= " } else { "+r.duration >= " }).push_bind(*least)
            }
            Self::Roots => sql.push("+r.parent IS NULL"),
        };
    }
}

/// Which filter a query is answered from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lead {
    Filter(&'static str),
    Words,
    /// None: the newest records first.
    Time,
}

/// A query that is ready to be asked.
pub(super) struct Prepared {
    filters: Vec<Filter>,
    words: Option<String>,
    lead: Lead,
    matches_nothing: bool,
}

impl Store {
    /// Makes a query ready that reads records in an order of its own.
    pub(super) async fn prepare(&self, query: &Query) -> Result<Prepared, StoreError> {
        let equal = [
            ("r.server", &query.server),
            ("r.name", &query.name),
            ("r.kind", &query.kind),
            ("r.principal", &query.principal),
        ];
        let mut filters: Vec<Filter> = equal
            .into_iter()
            .filter_map(|(column, wanted)| Some(Filter::Equal(column, wanted.clone()?)))
            .chain(query.session.iter().map(|session| Filter::Equal("r.session", session.as_str().to_owned())))
            .chain(query.status.iter().map(|status| match status.as_str() {
                "open" => Filter::Open,
                status => Filter::Equal("r.status", status.to_owned()),
            }))
            .chain(query.since.map(|since| Filter::Since(micros(since))))
            .chain(query.until.map(|until| Filter::Until(micros(until))))
            .chain(query.slower_than_micros.map(|least| Filter::SlowerThan(integer(least))))
            .chain(query.roots.then_some(Filter::Roots))
            .collect();
        let mut matches_nothing = false;
        if let Some(client) = &query.client {
            let clients = self.clients_like(client).await?;
            matches_nothing = clients.is_empty();
            filters.push(Filter::Clients(clients));
        }
        let words = query.grep.as_deref().map(words);
        matches_nothing |= words.as_deref() == Some("");
        Ok(Prepared { filters, words, lead: Lead::Time, matches_nothing })
    }

    /// The same for one that goes by whichever filter matches fewest.
    pub(super) async fn prepare_led(&self, query: &Query) -> Result<Prepared, StoreError> {
        let mut prepared = self.prepare(query).await?;
        if !prepared.matches_nothing {
            prepared.lead = self.lead(&prepared).await?;
        }
        Ok(prepared)
    }

    async fn lead(&self, prepared: &Prepared) -> Result<Lead, StoreError> {
        let rest = if prepared.words.is_some() { Lead::Words } else { Lead::Time };
        let indexed: Vec<_> = prepared.filters.iter().filter_map(|filter| Some((filter, filter.index()?))).collect();
        match indexed.as_slice() {
            [] => return Ok(rest),
            // In the index of one value its records are in order of time, and SQLite goes by it by itself.
            [(Filter::Equal(..), _)] if rest == Lead::Time => return Ok(rest),
            [(Filter::Clients(clients), _)] if rest == Lead::Time && clients.len() == 1 => return Ok(rest),
            _ => {}
        }
        let (mut lead, mut fewest) = (rest, RARE);
        if let Some(words) = &prepared.words {
            let mut sql = QueryBuilder::new(COUNT);
            sql.push("audit_words WHERE audit_words MATCH ").push_bind(words.clone());
            fewest = self.count(sql, RARE).await?;
        }
        for (filter, index) in indexed {
            let mut sql = QueryBuilder::new(COUNT);
            sql.push("audit_records r INDEXED BY ").push(index).push(" WHERE TRUE");
            filter.push(&mut sql, true);
            let found = self.count(sql, fewest).await?;
            if found < fewest {
                (lead, fewest) = (Lead::Filter(index), found);
            }
        }
        Ok(lead)
    }

    /// How many rows there are of what follows [`COUNT`], as far as `max`.
    async fn count(&self, mut sql: QueryBuilder<Sqlite>, max: i64) -> Result<i64, StoreError> {
        sql.push(" LIMIT ").push_bind(max).push(")");
        Ok(sql.build().fetch_one(self.readers()).await?.try_get("n")?)
    }

    /// The clients of that name, whatever their version. Reads as many rows as there are clients.
    async fn clients_like(&self, client: &str) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query(
            "WITH RECURSIVE named (client) AS (
                 SELECT min(client) FROM audit_records WHERE client >= ?1 AND client < ?1 || '!'
                 UNION ALL
                 SELECT (SELECT min(client) FROM audit_records WHERE client > named.client AND client < ?1 || '!')
                 FROM named WHERE named.client IS NOT NULL
             )
             SELECT client FROM named WHERE client = ?1 OR client LIKE '% %' LIMIT ?2",
        )
        .bind(client)
        .bind(i64::try_from(CLIENTS_MAX).unwrap_or(i64::MAX))
        .fetch_all(self.readers())
        .await?;
        rows.iter().map(|row| Ok(row.try_get("client")?)).collect()
    }
}

impl Prepared {
    pub(super) fn matches_nothing(&self) -> bool {
        self.matches_nothing
    }

    /// The full-text query, if there is one.
    pub(super) fn words(&self) -> Option<&str> {
        self.words.as_deref()
    }

    /// The full-text query, if what it matches is to be looked through for the rest.
    pub(super) fn leading_words(&self) -> Option<&str> {
        self.words().filter(|_| self.lead == Lead::Words)
    }

    /// Says which index leads, after `audit_records r` of a `FROM`.
    pub(super) fn push_index(&self, sql: &mut QueryBuilder<Sqlite>) {
        if let Lead::Filter(index) = self.lead {
            sql.push(" INDEXED BY ").push(index);
        }
    }

    /// Appends every filter but the words, each after an `AND`.
    pub(super) fn push_conditions(&self, sql: &mut QueryBuilder<Sqlite>) {
        for filter in &self.filters {
            filter.push(sql, filter.index().is_some_and(|index| self.lead == Lead::Filter(index)));
        }
    }

    /// Appends that the words are in the record, after an `AND`. Each record is looked up in the index of words.
    pub(super) fn push_words(&self, sql: &mut QueryBuilder<Sqlite>) {
        if let Some(words) = self.words() {
            sql.push(" AND EXISTS (SELECT 1 FROM audit_words WHERE audit_words MATCH ").push_bind(words.to_owned());
            sql.push(" AND rowid IN (r.seq, r.closed))");
        }
    }
}

/// A full-text query for every word of `text`; what has a meaning in such queries has none here.
fn words(text: &str) -> String {
    let quoted = text.split_whitespace().filter(|word| word.chars().any(char::is_alphanumeric));
    quoted.map(|word| format!("\"{}\"", word.replace('"', "\"\""))).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_query_syntax() {
        assert_eq!(words(r#"NEAR(a b) OR -c "d" rowid:1"#), r#""NEAR(a" "b)" "OR" "-c" """d""" "rowid:1""#);
        assert_eq!(words(" * ( ) \" - "), "");
    }
}
