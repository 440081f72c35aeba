//! Named switches that take effect at once.
//!
//! A feature has a default, which the settings file may replace and lock; what a command sets is kept in the database and
//! wins over both unless the feature is locked. Whoever cares about a change waits on [`Features::changes`].

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

use tokio::sync::watch;

use crate::{
    clock::SharedClock,
    config::FeatureSetting,
    store::{Store, StoreError},
};

/// A switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// Agents find, add, configure, use and remove servers themselves.
    DynamicTools,
    /// Agents run scripts that call tools.
    CodeMode,
    /// Tools are listed as `server__tool`; without it as `tool` where no other server has that name.
    ToolNamePrefix,
    /// Clients of revision 2026-07-28 are shown the management tools only, whatever session they use.
    StaticTools,
}

impl Feature {
    pub const ALL: [Self; 4] = [Self::DynamicTools, Self::CodeMode, Self::ToolNamePrefix, Self::StaticTools];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DynamicTools => "dynamic-tools",
            Self::CodeMode => "code-mode",
            Self::ToolNamePrefix => "tool-name-prefix",
            Self::StaticTools => "static-tools",
        }
    }

    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            Self::DynamicTools => "agents find, add, configure, use and remove servers themselves",
            Self::CodeMode => "agents run scripts that call tools",
            Self::ToolNamePrefix => "tools are listed as server__tool rather than tool",
            Self::StaticTools => "clients of revision 2026-07-28 are listed the management tools only",
        }
    }

    fn default_state(self) -> bool {
        match self {
            Self::DynamicTools | Self::CodeMode | Self::ToolNamePrefix => true,
            Self::StaticTools => false,
        }
    }

    /// The feature of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|feature| feature.name() == name)
    }
}

/// A feature's state, for showing.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FeatureState {
    pub name: String,
    pub enabled: bool,
    pub locked: bool,
    pub description: String,
}

/// Every switch, as it is now.
pub struct Features {
    store: Store,
    clock: SharedClock,
    settings: BTreeMap<Feature, FeatureSetting>,
    current: RwLock<BTreeMap<Feature, bool>>,
    changed: watch::Sender<u64>,
}

/// A switch cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum SetFeatureError {
    #[error("there is no feature `{name}` ({})", Feature::ALL.map(Feature::name).join(", "))]
    Unknown { name: String },
    #[error("the feature `{name}` is locked in the settings file")]
    Locked { name: &'static str },
    #[error("could not keep the feature's state")]
    Store(#[from] StoreError),
}

impl Features {
    /// Reads the switches; names in `settings` that are no feature are an error.
    ///
    /// # Errors
    ///
    /// When the database cannot be read, or the settings name a feature that does not exist.
    pub async fn load(
        settings: &BTreeMap<String, FeatureSetting>,
        store: Store,
        clock: SharedClock,
    ) -> Result<Self, SetFeatureError> {
        let mut decided = BTreeMap::new();
        for (name, setting) in settings {
            let feature = Feature::named(name).ok_or_else(|| SetFeatureError::Unknown { name: name.clone() })?;
            decided.insert(feature, *setting);
        }
        let kept = store.features().await?;
        let state = |feature: Feature| match (decided.get(&feature), kept.get(feature.name())) {
            (Some(setting), _) if setting.locked => setting.enabled,
            (_, Some(kept)) => *kept,
            (Some(setting), None) => setting.enabled,
            (None, None) => feature.default_state(),
        };
        let current = Feature::ALL.into_iter().map(|feature| (feature, state(feature))).collect();
        Ok(Self { store, clock, settings: decided, current: RwLock::new(current), changed: watch::Sender::new(0) })
    }

    /// Whether the feature is on.
    #[must_use]
    pub fn enabled(&self, feature: Feature) -> bool {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.get(&feature).copied().unwrap_or_else(|| feature.default_state())
    }

    /// Sets a switch, keeps it, and tells everybody who waits for changes.
    ///
    /// # Errors
    ///
    /// When there is no such feature, when it is locked, or when it could not be kept: then nothing has changed.
    pub async fn set(&self, name: &str, enabled: bool) -> Result<Feature, SetFeatureError> {
        let feature = Feature::named(name).ok_or_else(|| SetFeatureError::Unknown { name: name.to_owned() })?;
        if self.locked(feature) {
            return Err(SetFeatureError::Locked { name: feature.name() });
        }
        self.store.set_feature(feature.name(), enabled, self.clock.now()).await?;
        self.current.write().unwrap_or_else(PoisonError::into_inner).insert(feature, enabled);
        self.changed.send_modify(|version| *version += 1);
        Ok(feature)
    }

    /// Tells everybody who waits for changes that what they are offered is not what it was, by no switch.
    pub fn announce(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// Every feature's state, in a fixed order.
    #[must_use]
    pub fn states(&self) -> Vec<FeatureState> {
        Feature::ALL
            .into_iter()
            .map(|feature| FeatureState {
                name: feature.name().to_owned(),
                enabled: self.enabled(feature),
                locked: self.locked(feature),
                description: feature.description().to_owned(),
            })
            .collect()
    }

    /// A receiver that changes whenever a feature does.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn locked(&self, feature: Feature) -> bool {
        self.settings.get(&feature).is_some_and(|setting| setting.locked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::SystemClock, lifecycle::Tasks, store::Durability};
    use std::{path::Path, sync::Arc};

    async fn load(folder: &Path, settings: &[(&str, bool, bool)]) -> Result<Features, SetFeatureError> {
        let (tasks, _crashes) = Tasks::new();
        let store = Store::open(folder, Durability::default(), &tasks).await.unwrap();
        let settings = settings
            .iter()
            .map(|(name, enabled, locked)| ((*name).to_owned(), FeatureSetting { enabled: *enabled, locked: *locked }))
            .collect();
        Features::load(&settings, store, Arc::new(SystemClock)).await
    }

    #[tokio::test]
    async fn a_switch_takes_effect_at_once_and_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let features = load(folder.path(), &[]).await.unwrap();
        let changes = features.changes();
        features.set("dynamic-tools", false).await.unwrap();
        assert!(!features.enabled(Feature::DynamicTools));
        assert!(changes.has_changed().unwrap());
        features.store.close().await;
        assert!(!load(folder.path(), &[]).await.unwrap().enabled(Feature::DynamicTools));
    }

    #[tokio::test]
    async fn a_locked_switch_stays_as_the_operator_set_it() {
        let folder = tempfile::tempdir().unwrap();
        let features = load(folder.path(), &[("dynamic-tools", false, true)]).await.unwrap();
        assert!(!features.enabled(Feature::DynamicTools));
        assert!(matches!(features.set("dynamic-tools", true).await, Err(SetFeatureError::Locked { .. })));
    }

    #[tokio::test]
    async fn an_unknown_feature_is_refused_with_the_names_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let features = load(folder.path(), &[]).await.unwrap();
        let error = features.set("dynamic-tool", false).await.unwrap_err().to_string();
        assert!(error.contains("dynamic-tools"), "{error}");
        features.store.close().await;
        assert!(load(folder.path(), &[("nope", true, false)]).await.is_err());
    }
}
