//! A session's Compose file: its services become servers of the session if a person has agreed to it, and wait for that if
//! nobody has.
//!
//! Who offers a file has read it; what is looked at here is whether it was agreed to, and whether the operator's own rules
//! let each service in. Nothing is started here: servers are started when a client is there.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rmcp::model::{ElicitRequest, ElicitRequestParams, ElicitationSchema, InputRequest};
use serde_json::{Value, json};

use super::{Context, Tools, definitions::object};
use crate::{
    audit::{Kind, Status, Subject},
    caller::{Caller, Era},
    compose::{Definition, Offer},
    ids::{Principal, ServerName},
    session::Session,
    supervisor::{Asker, Key, upstream::chain},
};

/// What became of a file that was offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// Its services are servers of the session, but for those that are named here with the reason.
    Taken(Vec<String>),
    /// Somebody has to agree first.
    Waiting,
}

impl Tools {
    /// Takes a file's services into a session if a person has agreed to it, and else keeps the offer.
    ///
    /// # Errors
    ///
    /// When that cannot be looked up or kept, in words.
    pub async fn take_offer(&self, session: &Arc<Session>, offer: Offer) -> Result<Taken, String> {
        let context = &self.context;
        if !offer.agreed {
            // First, so that who agrees meanwhile finds it.
            session.put_offer(offer.clone());
            if !context.store.has_consent(&offer.hash).await.map_err(|error| chain(&error))? {
                return Ok(Taken::Waiting);
            }
        }
        let left_out = context.take(session, &offer).await?;
        Ok(Taken::Taken(left_out))
    }

    /// Keeps that a person has agreed to a file. Sessions that wait for that have its services at once, but for those that
    /// are given back, with the reason.
    ///
    /// # Errors
    ///
    /// When that could not be recorded or kept, in words.
    pub async fn agree_to(&self, principal: &Principal, hash: &str, file: &str) -> Result<Vec<String>, String> {
        self.context.agree(principal, hash, file).await
    }

    /// Asks the person behind a client of a revision up to 2025-11-25, once it is connected, if the client can ask.
    pub fn ask_to_agree(&self, session: &Arc<Session>) {
        if session.offer().is_none() {
            return;
        }
        let (context, session) = (self.context.clone(), session.clone());
        self.context.tasks.spawn(async move {
            // One offer from here on: another may take its place while the person reads.
            let Some(offer) = session.offer() else { return };
            let Some(request) = question(&offer) else { return };
            if !session.can_ask(&request) || !session.begins_to_ask(&offer) {
                return;
            }
            tokio::select! {
                answer = session.ask(request) => context.answered(&session, &offer, answer.ok()).await,
                () = tokio::time::sleep(context.limits.question()) => {}
                () = context.tasks.stopping_token().cancelled_owned() => {}
            }
        });
    }
}

impl Context {
    /// Asks the person behind a client of revision 2026-07-28, which can be asked within a call only.
    pub(super) async fn ask_in_call(self: &Arc<Self>, session: &Arc<Session>, caller: &Caller) {
        let Some(offer) = session.offer().filter(|_| caller.era == Era::Modern) else { return };
        let Some(request) = question(&offer) else { return };
        if !caller.can_answer(&request) || !session.begins_to_ask(&offer) {
            return;
        }
        let limit: Duration = self.limits.question();
        tokio::select! {
            answer = tokio::time::timeout(limit, caller.link.ask(request)) => {
                self.answered(session, &offer, answer.ok().and_then(Result::ok)).await;
            }
            () = caller.cancelled.cancelled() => {}
        }
    }

    async fn answered(self: &Arc<Self>, session: &Arc<Session>, offer: &Offer, answer: Option<Value>) {
        let yes = answer.is_some_and(|answer| answer["action"] == "accept" && answer["content"]["start"] == "yes");
        if !yes {
            return;
        }
        match self.agree(session.principal(), &offer.hash, &offer.file).await {
            Ok(left_out) => {
                // The question is over: nobody is there to be told.
                for problem in left_out {
                    tracing::warn!(problem, "a service of a Compose file is left out");
                }
            }
            Err(error) => tracing::warn!(error, "that a Compose file was agreed to could not be kept"),
        }
    }

    /// Keeps that somebody agreed to a file, and gives its services to the sessions that wait for that. Gives back those
    /// that are left out in one of them, with the reason.
    async fn agree(self: &Arc<Self>, principal: &Principal, hash: &str, file: &str) -> Result<Vec<String>, String> {
        self.noted(None, principal, &format!("trust {file} {hash}")).await?;
        self.store.put_consent(hash, file, self.clock.now()).await.map_err(|error| chain(&error))?;
        let mut all_left_out = BTreeSet::new();
        for session in self.sessions.waiting_for(hash) {
            let Some(offer) = session.offer_of(hash) else { continue };
            match self.take(&session, &offer).await {
                Ok(left_out) => all_left_out.extend(left_out),
                Err(error) => tracing::warn!(error, "a Compose file that was agreed to could not be used"),
            }
        }
        Ok(all_left_out.into_iter().collect())
    }

    async fn noted(&self, session: Option<&Session>, principal: &Principal, name: &str) -> Result<(), String> {
        let session = session.map(Session::id);
        let (kind, parent) = (Kind::Compose, None);
        let subject = Subject { kind, parent, session, principal, client: None, server: None, name, trace: None };
        self.audit
            .note(&subject, Status::Success, None)
            .await
            .map_err(|error| format!("nothing was done, because it could not be recorded: {}", chain(&error)))
    }

    /// Makes a file's services servers of the session, all of them at once. Gives back those that are left out, with the
    /// reason.
    async fn take(self: &Arc<Self>, session: &Arc<Session>, offer: &Offer) -> Result<Vec<String>, String> {
        let _one_at_a_time = session.taking().await;
        let before = session.compose_entries();
        let of_offer = offer.definitions.iter().map(|definition| definition.name.clone());
        let names = before.iter().map(|known| known.name.clone()).chain(of_offer);
        let _one_change_at_a_time = session.hold_servers(names.collect()).await;
        self.noted(Some(session), session.principal(), &format!("use {} {}", offer.file, offer.hash)).await?;
        let (wanted, left_out) = self.allowed(session, offer);
        let stale = self.sessions.take_compose(session, wanted).await.map_err(|error| chain(&error))?;
        for server in stale {
            // By its name: there may be no entry for it any more, or another one.
            let key = Key { session: Some(session.id().clone()), server };
            self.supervisor.forgive(&key);
            self.supervisor.stop(&key);
        }
        session.settle_offer(&offer.hash);
        Ok(left_out)
    }

    /// The services that the operator's rules let in, and why others are left out.
    fn allowed(&self, session: &Session, offer: &Offer) -> (Vec<Definition>, Vec<String>) {
        let (mut wanted, mut left_out) = (Vec::new(), Vec::new());
        let max = self.limits.servers_per_session_max;
        // Services that were there before make room.
        let before = session.compose_entries();
        let is_other = |server: &ServerName| {
            offer.definitions.iter().all(|definition| definition.name != *server)
                && before.iter().all(|known| known.name != *server)
        };
        let others = session.servers().iter().filter(|added| is_other(&added.server)).count();
        for definition in &offer.definitions {
            let refused = if session.server(&definition.name).is_some_and(|added| added.fixed) {
                Some("the operator has put another server of that name into every session".to_owned())
            } else if others + wanted.len() >= max {
                Some(format!("a session may have {max} servers (limits.servers_per_session_max)"))
            } else {
                let binds = definition.binds.iter();
                let hidden = binds.filter_map(|bind| self.supervisor.permits(&bind.source).err()).next();
                hidden.map(|refused| refused.to_string()).or_else(|| self.refusal(&definition.entry()))
            };
            match refused {
                Some(why) => left_out.push(format!("{}: {why}", definition.name)),
                None => wanted.push(definition.clone()),
            }
        }
        (wanted, left_out)
    }
}

/// What the person is asked. A plain form: an answer has to be chosen. Nothing if it does not fit: nobody is to agree to what
/// they have not seen, and the command that agrees to it shows it all.
fn question(offer: &Offer) -> Option<InputRequest> {
    let (lines, true) = offer.lines() else { return None };
    let schema = object(json!({
        "type": "object",
        "properties": {"start": {"type": "string", "title": "Start these servers", "enum": ["yes", "no"]}},
        "required": ["start"],
    }));
    let requested_schema = ElicitationSchema::from_json_schema(schema.as_ref().clone()).ok()?;
    let message = format!(
        "{} would start servers in containers on this machine:\n- {}\nStart them, now and whenever the file is the same?",
        offer.file,
        lines.join("\n- ")
    );
    let params = ElicitRequestParams::FormElicitationParams { meta: None, message, requested_schema };
    Some(InputRequest::Elicitation(ElicitRequest::new(params)))
}
