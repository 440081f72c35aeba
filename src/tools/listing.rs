//! What clients are listed: tools, prompts, resources, templates.

use std::{sync::Arc, time::Duration};

use rmcp::model::{LoggingLevel, Prompt, Resource, ResourceTemplate, Tool};

use super::{Context, ManagementTool, Seat, Tools, code_mode};
use crate::{
    caller::{Caller, Era},
    features::Feature,
    ids::ServerName,
    session::{
        Session, SessionsError,
        menu::{Found, Menu, MenuTool},
    },
    supervisor::{Key, State, Upstream},
};

/// How long a list waits for a server that has never run here. What it offers is announced when it is known.
const LIST_WAIT: Duration = Duration::from_secs(10);

/// What the name of a tool stands for in a session.
pub enum Named {
    /// A tool of the broker's own, or a script.
    Own,
    Tool(Box<MenuTool>),
    /// Several servers have a tool of that name.
    Several(Vec<MenuTool>),
    /// It is not in this menu.
    Nothing(Arc<Menu>),
}

impl Tools {
    /// The tools a client is listed.
    ///
    /// The broker's own come first, then the servers' in the order in which they were added. Clients whose session is a
    /// handle see the operator's servers only, whatever they have added: in revision 2026-07-28 a list may not change as a
    /// side effect of other requests.
    ///
    /// # Errors
    ///
    /// When the sessions cannot be read.
    pub async fn list_tools(&self, seat: &Seat, caller: &Caller) -> Result<Vec<Tool>, SessionsError> {
        let context = &self.context;
        let mut tools = Vec::new();
        if context.features.enabled(Feature::DynamicTools) {
            let with_handle = matches!(seat, Seat::Handle(_));
            // Every agent reads the list in every session: what is of no use is not in it. What is not in it can be called.
            let offered = |tool: &ManagementTool| match tool {
                ManagementTool::CodeMode => context.features.enabled(Feature::CodeMode),
                ManagementTool::CreateProfile | ManagementTool::ActivateProfile => context.profiles.any(),
                _ => true,
            };
            tools.extend(ManagementTool::ALL.into_iter().filter(offered).map(|tool| tool.definition(with_handle)));
        }
        let only_fixed = caller.era == Era::Modern && context.features.enabled(Feature::StaticTools);
        let session = context.listed_session(seat).await?;
        let Some(session) = session else { return Ok(tools) };
        let menu = context.menu(&session, caller).await;
        let fixed: Vec<_> =
            session.servers().into_iter().filter(|added| added.fixed).map(|added| added.server).collect();
        tools.extend(
            menu.tools
                .iter()
                .filter(|tool| tool.listed)
                .filter(|tool| !only_fixed || fixed.contains(&tool.server))
                .map(|tool| {
                    let mut listed = tool.tool.clone();
                    listed.name = tool.exposed.clone().into();
                    listed
                }),
        );
        if context.features.enabled(Feature::CodeMode) && !only_fixed {
            for (name, servers) in session.code_tools() {
                tools.push(code_mode::definition(context, &menu, &name, &servers).await);
            }
        }
        Ok(tools)
    }

    /// One tool as a client sees it, if it is known without asking its server.
    #[must_use]
    pub fn tool(&self, session: &Session, name: &str) -> Option<Tool> {
        session.menu(self.context.with_prefixes()).tool(name).map(|tool| tool.tool.clone())
    }

    /// The prompts a client is listed.
    ///
    /// # Errors
    ///
    /// When the sessions cannot be read.
    pub async fn list_prompts(&self, seat: &Seat, caller: &Caller) -> Result<Vec<Prompt>, SessionsError> {
        let menu = self.menu(seat, caller).await?;
        let listed = |prompt: &crate::session::menu::MenuPrompt| {
            let mut listed = prompt.prompt.clone();
            listed.name.clone_from(&prompt.exposed);
            listed
        };
        Ok(menu.prompts.iter().map(listed).collect())
    }

    /// The resources a client is listed.
    ///
    /// # Errors
    ///
    /// When the sessions cannot be read.
    pub async fn list_resources(&self, seat: &Seat, caller: &Caller) -> Result<Vec<Resource>, SessionsError> {
        let menu = self.menu(seat, caller).await?;
        let listed = |resource: &crate::session::menu::MenuResource| {
            let mut listed = resource.resource.clone();
            listed.uri.clone_from(&resource.exposed_uri);
            listed
        };
        Ok(menu.resources.iter().map(listed).collect())
    }

    /// The resource templates a client is listed.
    ///
    /// # Errors
    ///
    /// When the sessions cannot be read.
    pub async fn list_resource_templates(
        &self,
        seat: &Seat,
        caller: &Caller,
    ) -> Result<Vec<ResourceTemplate>, SessionsError> {
        let menu = self.menu(seat, caller).await?;
        Ok(menu.templates.iter().map(|template| template.template.clone()).collect())
    }

    /// Has every server of a session that runs send log messages of this level, and those that start later too.
    pub async fn set_log_level(&self, session: &Arc<Session>, level: LoggingLevel) {
        session.set_log_level(level);
        for upstream in self.context.running(session) {
            upstream.set_log_level(level).await;
        }
    }

    /// Tells every server of a session that runs that the client's roots have changed.
    pub async fn roots_changed(&self, session: &Arc<Session>) {
        for upstream in self.context.running(session) {
            upstream.notify_roots_changed().await;
        }
    }

    /// Starts the operator's servers of a session, so that its first list need not wait for them.
    pub fn warm(&self, session: &Arc<Session>, caller: &Caller) {
        if session.menu(self.context.with_prefixes()).complete {
            return;
        }
        let (context, session) = (self.context.clone(), session.clone());
        let mut caller = caller.clone();
        caller.link = crate::caller::Link::closed();
        caller.cancelled = context.tasks.stopping_token();
        let tasks = context.tasks.clone();
        tasks.spawn(async move { context.learn_surfaces(&session, &caller, |_| true).await });
    }

    async fn menu(&self, seat: &Seat, caller: &Caller) -> Result<Arc<Menu>, SessionsError> {
        match self.context.listed_session(seat).await? {
            Some(session) => Ok(self.context.menu(&session, caller).await),
            None => Ok(Arc::default()),
        }
    }
}

impl Tools {
    /// Every tool and prompt of a session's servers, listed or not.
    pub async fn whole_menu(&self, session: &Arc<Session>, caller: &Caller) -> Arc<Menu> {
        self.context.menu(session, caller).await
    }

    /// What a name stands for in a session, as `mcp-exec` takes it. Starts servers only as long as it is not known.
    pub async fn find_tool(&self, session: &Arc<Session>, caller: &Caller, name: &str) -> Named {
        self.context.find_tool(session, caller, name).await
    }

    /// A tool of the broker's own, or a script, as [`Named::Own`] has it; none of those that are never listed. Starts those
    /// servers of a script of which nothing is known.
    pub async fn own_tool(&self, session: &Arc<Session>, caller: &Caller, name: &str) -> Option<Tool> {
        if let Some(tool) = ManagementTool::named(name) {
            return Some(tool.definition(false));
        }
        let script = name.strip_prefix(code_mode::PREFIX)?;
        let servers = session.code_tool(script)?;
        let context = &self.context;
        context.recall(session, caller).await;
        let learning = context.learn_surfaces(session, caller, |server| servers.contains(server));
        let _ = tokio::time::timeout(context.limits.start(), learning).await;
        let menu = session.menu(context.with_prefixes());
        Some(code_mode::definition(context, &menu, script, &servers).await)
    }

    /// What a server's tool is called by in a session, if the server is on and has it. Starts the server if need be.
    pub async fn exposed(&self, session: &Arc<Session>, caller: &Caller, server: &str, tool: &str) -> Option<String> {
        let is_it = |known: &MenuTool| known.server.as_str() == server && known.tool.name == tool;
        let menu = self.context.menu_with(session, caller, |menu| menu.tools.iter().any(is_it)).await;
        menu.tools.iter().find(|known| is_it(known)).map(|known| known.exposed.clone())
    }
}

impl Context {
    /// The session whose servers are listed; none when a client without a session would be listed nothing anyway.
    async fn listed_session(&self, seat: &Seat) -> Result<Option<Arc<Session>>, SessionsError> {
        match seat {
            Seat::Fixed(session) => Ok(Some(session.clone())),
            Seat::Handle(_) if !self.sessions.has_fixed() => Ok(None),
            Seat::Handle(principal) => self.sessions.of_principal(principal).await.map(Some),
        }
    }

    pub(super) async fn find_tool(self: &Arc<Self>, session: &Arc<Session>, caller: &Caller, name: &str) -> Named {
        // First, so that a server's tool of such a name is never taken for it.
        let is_own = ManagementTool::named(name).is_some_and(|tool| self.offers(tool));
        if is_own || self.route_script(session, name, None).is_some() {
            return Named::Own;
        }
        let menu = self.menu_with(session, caller, |menu| is_known(name, &menu.find_tool(name))).await;
        match menu.find_tool(name) {
            Found::Tool(tool) => Named::Tool(Box::new(tool.clone())),
            Found::Ambiguous(tools) => Named::Several(tools.into_iter().cloned().collect()),
            Found::Nothing => Named::Nothing(menu.clone()),
        }
    }

    /// What a session offers, waiting a little for servers that have never run here.
    pub(super) async fn menu(self: &Arc<Self>, session: &Arc<Session>, caller: &Caller) -> Arc<Menu> {
        self.menu_within(session, caller, LIST_WAIT, |_| false).await
    }

    /// What a session offers; waits for servers that have never run only as long as `enough` is not there.
    pub(super) async fn menu_with(
        self: &Arc<Self>,
        session: &Arc<Session>,
        caller: &Caller,
        enough: impl Fn(&Menu) -> bool,
    ) -> Arc<Menu> {
        self.menu_within(session, caller, self.limits.start(), enough).await
    }

    async fn menu_within(
        self: &Arc<Self>,
        session: &Arc<Session>,
        caller: &Caller,
        limit: Duration,
        enough: impl Fn(&Menu) -> bool,
    ) -> Arc<Menu> {
        // The menu itself says whether it is complete: a server may tell what it offers at any moment.
        let is_enough = |menu: &Menu| menu.complete || enough(menu);
        let menu = session.menu(self.with_prefixes());
        if is_enough(&menu) {
            return menu;
        }
        self.recall(session, caller).await;
        if !is_enough(&session.menu(self.with_prefixes())) {
            let _ = tokio::time::timeout(limit, self.learn_surfaces(session, caller, |_| true)).await;
        }
        session.menu(self.with_prefixes())
    }

    /// The connections to the session's own servers that are up now.
    fn running(&self, session: &Session) -> Vec<Arc<Upstream>> {
        session
            .servers()
            .iter()
            .filter_map(|added| {
                let key = Key { session: Some(session.id().clone()), server: added.server.clone() };
                match self.supervisor.get(&key)?.state() {
                    State::Ready(ready) => Some(ready.0),
                    _ => None,
                }
            })
            .collect()
    }

    /// Starts, at once, every server of the session of which nothing is known, of those that are wanted.
    async fn learn_surfaces(
        self: &Arc<Self>,
        session: &Arc<Session>,
        caller: &Caller,
        is_wanted: impl Fn(&ServerName) -> bool,
    ) {
        let unknown = session.servers().into_iter().filter(|added| added.surface.is_none() && is_wanted(&added.server));
        let starts = unknown.map(|added| async move {
            if let Err(error) = self.reach(session, &added.server, caller).await {
                tracing::warn!(server.name = %added.server, %error, "a server of a session does not start");
            }
        });
        futures_util::future::join_all(starts).await;
    }
}

/// Whether no server has to be asked what a name stands for. None has a tool that is called as one of the broker's own,
/// which may be switched off.
fn is_known(name: &str, found: &Found<'_>) -> bool {
    !matches!(found, Found::Nothing) || ManagementTool::named(name).is_some()
}
