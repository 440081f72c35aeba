//! A session's Compose file: its services become servers of the session if a person has agreed to it, and wait for that if
//! nobody has.
//!
//! Who offers a file has read it; what is looked at here is whether it was agreed to, and whether the operator's own rules
//! let each service in. Nothing is started here: servers are started when a client is there.

use std::{sync::Arc, time::Duration};

use rmcp::model::{ElicitRequest, ElicitRequestParams, ElicitationSchema, InputRequest};
use serde_json::{Value, json};

use super::{Context, Tools, definitions::object, reach::key_of};
use crate::{
    audit::{Kind, Status, Subject},
    caller::{Caller, Era},
    compose::{Definition, Offer},
    ids::Principal,
    secrets::Scope,
    session::{NewServer, Session},
    store::sessions::Activation,
    supervisor::{Asker, upstream::chain},
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

    /// Keeps that a person has agreed to a file. Sessions that wait for that have its services at once.
    ///
    /// # Errors
    ///
    /// When that could not be recorded or kept, in words.
    pub async fn agree_to(&self, principal: &Principal, hash: &str, file: &str) -> Result<(), String> {
        self.context.agree(principal, hash, file).await
    }

    /// Asks the person behind a client of a revision up to 2025-11-25, once it is connected, if the client can ask.
    pub fn ask_to_agree(&self, session: &Arc<Session>) {
        if session.offer().is_none() {
            return;
        }
        let (context, session) = (self.context.clone(), session.clone());
        self.context.tasks.spawn(async move {
            let Some(request) = session.offer().as_deref().and_then(question) else { return };
            if !session.can_ask(&request) {
                return;
            }
            let Some(offer) = session.offer_to_ask() else { return };
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
        if caller.era != Era::Modern || session.offer().is_none() {
            return;
        }
        let Some(request) = session.offer().as_deref().and_then(question) else { return };
        if !caller.can_answer(&request) {
            return;
        }
        let Some(offer) = session.offer_to_ask() else { return };
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
        if let Err(error) = self.agree(session.principal(), &offer.hash, &offer.file).await {
            tracing::warn!(error, "that a Compose file was agreed to could not be kept");
        }
    }

    /// Keeps that somebody agreed to a file, and gives its services to the sessions that wait for that.
    async fn agree(self: &Arc<Self>, principal: &Principal, hash: &str, file: &str) -> Result<(), String> {
        self.noted(None, principal, &format!("trust {file} {hash}")).await?;
        self.store.put_consent(hash, file, self.clock.now()).await.map_err(|error| chain(&error))?;
        for session in self.sessions.waiting_for(hash) {
            let Some(offer) = session.offer() else { continue };
            match self.take(&session, &offer).await {
                Ok(left_out) => {
                    for problem in left_out {
                        tracing::warn!(problem, "a service of a Compose file is left out");
                    }
                }
                Err(error) => tracing::warn!(error, "a Compose file that was agreed to could not be used"),
            }
        }
        Ok(())
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

    /// Makes a file's services servers of the session. Gives back those that are left out, with the reason.
    async fn take(self: &Arc<Self>, session: &Arc<Session>, offer: &Offer) -> Result<Vec<String>, String> {
        self.noted(Some(session), session.principal(), &format!("use {} {}", offer.file, offer.hash)).await?;
        let (wanted, left_out) = self.allowed(session, offer);
        let before = session.compose_entries();
        let mut same = Vec::new();
        for definition in &wanted {
            let entry = definition.entry();
            let known = before.iter().find(|known| known.name == entry.name);
            let as_it_was = known.is_some_and(|known| {
                known.runs.first().map(|run| known.fingerprint(run))
                    == entry.runs.first().map(|run| entry.fingerprint(run))
            });
            let values = self.keep_variables(session, definition).await?;
            if as_it_was && values {
                same.push(definition.name.clone());
            }
        }
        let fails = |error: crate::store::StoreError| chain(&error);
        self.sessions.put_compose(session, wanted.clone()).await.map_err(fails)?;
        for gone in before.iter().filter(|known| wanted.iter().all(|definition| definition.name != known.name)) {
            self.sessions.remove_server(session, &gone.name).await.map_err(fails)?;
        }
        let changed = before.iter().map(|known| &known.name).chain(wanted.iter().map(|definition| &definition.name));
        for name in changed.filter(|name| !same.contains(name)) {
            if let Some(entry) = self.entry(session, name) {
                self.supervisor.forgive(&key_of(session, &entry));
                self.supervisor.stop(&key_of(session, &entry));
            }
        }
        let servers = wanted.iter().map(|definition| NewServer {
            activate: session.server(&definition.name).map_or(Activation::All, |added| added.activate),
            name: definition.name.clone(),
            config: None,
            surface: None,
        });
        self.sessions.put_servers(session, servers.collect()).await.map_err(fails)?;
        Ok(left_out)
    }

    /// The services that the operator's rules let in, and why others are left out.
    fn allowed(&self, session: &Session, offer: &Offer) -> (Vec<Definition>, Vec<String>) {
        let (mut wanted, mut left_out) = (Vec::new(), Vec::new());
        let max = self.limits.servers_per_session_max;
        let others = session
            .servers()
            .iter()
            .filter(|added| offer.definitions.iter().all(|definition| definition.name != added.server))
            .count();
        for definition in &offer.definitions {
            let refused = if session.server(&definition.name).is_some_and(|added| added.fixed) {
                Some("the operator has put another server of that name into every session".to_owned())
            } else if others + wanted.len() >= max {
                Some(format!("a session may have {max} servers (limits.servers_per_session_max)"))
            } else {
                self.refusal(&definition.entry())
            };
            match refused {
                Some(why) => left_out.push(format!("{}: {why}", definition.name)),
                None => wanted.push(definition.clone()),
            }
        }
        (wanted, left_out)
    }

    /// Keeps variables that came from elsewhere than the file, sealed. Says whether they are what they were.
    async fn keep_variables(&self, session: &Session, definition: &Definition) -> Result<bool, String> {
        let mut same = true;
        for (variable, value) in &definition.secrets {
            let name = definition.secret_name(variable);
            let known = self.secrets.get(Some(session.id()), &name);
            if known.is_some_and(|known| known.reveal() == value) {
                continue;
            }
            same = false;
            let scope = Scope::Session(session.id().clone());
            self.secrets.set(scope, &name, value.clone().into()).await.map_err(|error| chain(&error))?;
        }
        Ok(same)
    }
}

/// What the person is asked. A plain form: an answer has to be chosen.
fn question(offer: &Offer) -> Option<InputRequest> {
    let schema = object(json!({
        "type": "object",
        "properties": {"start": {"type": "string", "title": "Start these servers", "enum": ["yes", "no"]}},
        "required": ["start"],
    }));
    let requested_schema = ElicitationSchema::from_json_schema(schema.as_ref().clone()).ok()?;
    let message = format!(
        "{} would start servers in containers on this machine:\n- {}\nStart them, now and whenever the file is the same?",
        offer.file,
        offer.lines().join("\n- ")
    );
    let params = ElicitRequestParams::FormElicitationParams { meta: None, message, requested_schema };
    Some(InputRequest::Elicitation(ElicitRequest::new(params)))
}
