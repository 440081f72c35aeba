//! Names and keys as programs write them: `githubOfficial` for `github-official`, `apiKey` for `browserbase.api_key`.
//!
//! What is written as the catalog has it counts first. Else letters and digits decide, upper and lower case alike, as long
//! as they are good for one thing only.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Entry, Snapshot, config_schema::ConfigSchema, entry::SecretSpec};
use crate::ids::ServerName;

/// Names that are offered instead of one that does not exist.
const NEAREST_MAX: usize = 3;

/// How alike a name has to be to be offered, from 0 to 1.
const ALIKE: f64 = 0.75;

/// Keys of a config that are said to be unknown.
const UNKNOWN_MAX: usize = 5;

/// What is said of a secret's value that [`secret_text`] does not take.
pub const A_SECRET_IS_TEXT: &str = "is a secret: give it as text that is not empty";

/// How deep the properties of a config are looked through.
const DEPTH_MAX: usize = 4;

/// `text` as far as its spelling does not matter.
#[must_use]
pub fn folded(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
}

/// The server that is meant by `given`.
///
/// # Errors
///
/// A sentence: several could be meant, or none is.
pub fn server(snapshot: &Snapshot, given: &str) -> Result<ServerName, String> {
    let trimmed = given.trim();
    if let Some(name) = trimmed.parse().ok().filter(|name| snapshot.entry(name).is_some()) {
        return Ok(name);
    }
    let wanted = folded(trimmed);
    let mut alike: Vec<&ServerName> =
        snapshot.offered().filter(|name| !wanted.is_empty() && folded(name.as_str()) == wanted).collect();
    if let [only] = alike.as_slice() {
        return Ok((*only).clone());
    }
    alike.sort();
    if !alike.is_empty() {
        let names = listed(alike.iter().map(|name| name.as_str()));
        return Err(format!("several servers can be meant: write it as one of {names}"));
    }
    let mut near = nearest(&wanted, snapshot.offered().map(ServerName::as_str));
    if near.is_empty() {
        near = snapshot.suggestions(trimmed).iter().map(ToString::to_string).collect();
    }
    Err(format!("there is no server of this name in the catalog{}", instead(&near)))
}

/// The config `given` for `entry`, with the entry's own names of properties and secrets.
///
/// # Errors
///
/// A sentence for each key that cannot be told, and for each value that cannot be a secret.
pub fn config(entry: &Entry, given: &Map<String, Value>) -> Result<Map<String, Value>, Vec<String>> {
    let offered = Offered::of(entry);
    let (mut config, mut problems) = (Map::new(), Vec::new());
    for (key, value) in given {
        match offered.meant_by(key).and_then(|place| place.put(&mut config, value)) {
            Ok(()) => {}
            Err(problem) => problems.push(format!("`{}` {problem}", shown(key))),
        }
    }
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

/// What is to be said of each key of a config that the entry does not name, where its schema leaves none open.
#[must_use]
pub fn unknown(entry: &Entry, config: &Map<String, Value>) -> Vec<String> {
    if entry.config.as_ref().is_some_and(ConfigSchema::is_open) {
        return Vec::new();
    }
    let offered = Offered::of(entry);
    let known =
        |key: &String| offered.properties.iter().any(|path| path.first() == Some(key) || path.join(".") == *key);
    let said = |key: &String| format!("`{}` {}", shown(key), offered.unknown(&folded(key)));
    config.keys().filter(|key| !known(key)).take(UNKNOWN_MAX).map(said).collect()
}

/// A value as a secret. Numbers are, as programs write what consists of digits.
#[must_use]
pub fn secret_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn shown(key: &str) -> String {
    key.escape_debug().take(80).collect()
}

/// What an entry takes.
struct Offered<'a> {
    server: String,
    secrets: &'a [SecretSpec],
    /// Paths of properties.
    properties: BTreeSet<Vec<String>>,
}

/// Where a value goes.
enum Place {
    Secret(String),
    Property(Vec<String>),
}

impl<'a> Offered<'a> {
    fn of(entry: &'a Entry) -> Self {
        let mut properties = BTreeSet::new();
        match entry.config.as_ref().map(ConfigSchema::as_value) {
            Some(Value::Array(schemas)) => schemas.iter().for_each(|schema| collect(schema, &[], &mut properties)),
            Some(schema) => collect(&schema, &[], &mut properties),
            None => {}
        }
        Self { server: folded(entry.name.as_str()), secrets: &entry.secrets, properties }
    }

    fn meant_by(&self, key: &str) -> Result<Place, String> {
        if self.properties.iter().any(|path| *path == [key]) {
            return Ok(Place::Property(vec![key.to_owned()]));
        }
        if self.secrets.iter().any(|secret| secret.name == key) {
            return Ok(Place::Secret(key.to_owned()));
        }
        let wanted = folded(key);
        let mut places = self.places(|name| folded(name) == wanted);
        if places.is_empty() {
            // `apiKey` of `browserbase` is its `browserbase_api_key`.
            let bare = self.bare(&wanted).to_owned();
            places = self.places(|name| self.bare(&folded(name)) == bare);
        }
        match places.len() {
            1 => Ok(places.remove(0)),
            0 => Err(self.unknown(&wanted)),
            _ => {
                let names: Vec<String> = places.iter().map(Place::name).collect();
                Err(format!("can mean {}: write it out", listed(names.iter().map(String::as_str))))
            }
        }
    }

    fn places(&self, is_meant: impl Fn(&str) -> bool) -> Vec<Place> {
        let secrets = self.secrets.iter().filter(|secret| spellings(secret).into_iter().any(&is_meant));
        let secrets = secrets.map(|secret| Place::Secret(secret.name.clone()));
        let properties = self.properties.iter().filter(|path| is_meant(&path.concat()));
        secrets.chain(properties.map(|path| Place::Property(path.clone()))).collect()
    }

    /// A folded name without the server's at its beginning.
    fn bare<'b>(&self, name: &'b str) -> &'b str {
        name.strip_prefix(self.server.as_str()).filter(|bare| !bare.is_empty()).unwrap_or(name)
    }

    fn unknown(&self, wanted: &str) -> String {
        let secrets = self.secrets.iter().map(|secret| secret.name.clone());
        let names: Vec<String> = secrets.chain(self.properties.iter().map(|path| path.join("."))).collect();
        if names.is_empty() {
            return "is not known: this server takes no config and no secrets".to_owned();
        }
        let near = nearest(wanted, names.iter().map(String::as_str));
        if near.is_empty() {
            format!("is not known: this server takes {}", listed(names.iter().map(String::as_str)))
        } else {
            format!("is not known{}", instead(&near))
        }
    }
}

impl Place {
    fn name(&self) -> String {
        match self {
            Self::Secret(name) => name.clone(),
            Self::Property(path) => path.join("."),
        }
    }

    fn put(self, config: &mut Map<String, Value>, value: &Value) -> Result<(), String> {
        let (path, value) = match &self {
            Self::Property(path) => (path.as_slice(), value.clone()),
            Self::Secret(name) => {
                let text = secret_text(value).ok_or(A_SECRET_IS_TEXT)?;
                (std::slice::from_ref(name), Value::String(text))
            }
        };
        let Some((last, outer)) = path.split_last() else { return Ok(()) };
        let mut at = config;
        for part in outer {
            let inner = at.entry(part.clone()).or_insert_with(|| Value::Object(Map::new()));
            at = inner.as_object_mut().ok_or_else(|| format!("is part of `{part}`, which is given as a whole"))?;
        }
        match at.insert(last.clone(), value) {
            None => Ok(()),
            Some(_) => Err(format!("is given twice: it is another spelling of `{}`", self.name())),
        }
    }
}

/// The paths of a schema's properties.
fn collect(schema: &Value, above: &[String], paths: &mut BTreeSet<Vec<String>>) {
    if above.len() >= DEPTH_MAX {
        return;
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = [above, std::slice::from_ref(name)].concat();
        collect(property, &path, paths);
        paths.insert(path);
    }
}

/// What a secret is called by: its whole name, that without the server's, its last part, its variable.
fn spellings(secret: &SecretSpec) -> [&str; 4] {
    let plain = secret.name.rsplit(':').next().unwrap_or(&secret.name);
    let last = plain.rsplit('.').next().unwrap_or(plain);
    [&secret.name, plain, last, &secret.env]
}

/// What may be meant by a name that is none of these, in brackets, if anything may.
#[must_use]
pub fn hint<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> String {
    instead(&nearest(&folded(wanted), names))
}

fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let likeness = |name: &str| {
        let whole = strsim::jaro_winkler(wanted, &folded(name));
        let last = name.rsplit(['.', ':', '/']).next().map_or(0.0, |last| strsim::jaro_winkler(wanted, &folded(last)));
        whole.max(last)
    };
    let mut near: Vec<(f64, &str)> =
        names.map(|name| (likeness(name), name)).filter(|(likeness, _)| *likeness >= ALIKE).collect();
    near.sort_by(|one, other| other.0.total_cmp(&one.0).then_with(|| one.1.cmp(other.1)));
    near.into_iter().take(NEAREST_MAX).map(|(_, name)| name.to_owned()).collect()
}

fn instead(near: &[String]) -> String {
    if near.is_empty() {
        String::new()
    } else {
        format!(" (did you mean {}?)", listed(near.iter().map(String::as_str)))
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Catalog, file};
    use serde_json::json;

    const YAML: &str = r#"
registry:
  demo:
    image: x
    secrets:
      - {name: demo.api_key, env: DEMO_KEY}
      - {name: demo.user.token, env: USER_TOKEN}
      - {name: demo.team.token, env: TEAM_TOKEN}
    config:
      - {name: demo, type: object, properties: {time_zone: {type: string}, "jira": {type: object, properties: {url: {type: string}}}}}
"#;

    fn spelt(given: &Value) -> Result<Value, Vec<String>> {
        let entry = file::parse("c.yaml", YAML).unwrap().entries.remove(0);
        config(&entry, given.as_object().unwrap()).map(Value::Object)
    }

    #[test]
    fn keys_are_known_in_every_spelling() {
        for key in ["demo.api_key", "apiKey", "api_key", "demoApiKey", "DEMO_KEY", "API-KEY"] {
            assert_eq!(spelt(&json!({key: "k"})), Ok(json!({"demo.api_key": "k"})), "{key}");
        }
        for key in ["time_zone", "timeZone", "timezone"] {
            assert_eq!(spelt(&json!({key: "UTC"})), Ok(json!({"time_zone": "UTC"})), "{key}");
        }
        assert_eq!(spelt(&json!({"jiraUrl": "u"})), Ok(json!({"jira": {"url": "u"}})));
        assert_eq!(spelt(&json!({"jira": {"url": "u"}})), Ok(json!({"jira": {"url": "u"}})));
    }

    #[test]
    fn a_key_that_nothing_takes_is_told() {
        let entry = file::parse("c.yaml", YAML).unwrap().entries.remove(0);
        let told = |given: Value| unknown(&entry, given.as_object().unwrap());
        assert!(told(json!({"time_zone": "UTC", "jira": {"url": "u"}, "jira.url": "u"})).is_empty());
        assert_eq!(told(json!({"timezne": "UTC"})), ["`timezne` is not known (did you mean `time_zone`?)"]);
        let many: Map<String, Value> = (0..100).map(|number| (format!("{number}\n"), Value::Null)).collect();
        let many = unknown(&entry, &many);
        assert!(
            many.len() == UNKNOWN_MAX && many[0].starts_with("`0\\n` is not known: this server takes "),
            "{many:?}"
        );
    }

    #[test]
    fn a_property_of_several_schemas_is_one_place() {
        let properties = |names: &str| format!("{{type: object, properties: {{{names}}}}}");
        let (one, other) = (properties("time_zone: {}, x: {}"), properties("y: {}, time_zone: {}"));
        let yaml = format!("registry: {{demo: {{image: x, config: [{one}, {other}]}}}}");
        let entry = file::parse("c.yaml", &yaml).unwrap().entries.remove(0);
        let spelt = config(&entry, json!({"timeZone": "UTC"}).as_object().unwrap());
        assert_eq!(spelt.map(Value::Object), Ok(json!({"time_zone": "UTC"})));
    }

    #[test]
    fn a_key_needs_no_name_of_its_server() {
        let snapshot = Catalog::load(&[]).unwrap().snapshot();
        let entry = snapshot.entry(&"browserbase".parse().unwrap()).unwrap();
        let given = json!({"apiKey": "a", "project_id": "b", "geminiApiKey": "c"});
        let spelt = config(entry, given.as_object().unwrap()).unwrap();
        let keys: Vec<&String> = spelt.keys().collect();
        let all =
            ["browserbase.browserbase_api_key", "browserbase.browserbase_project_id", "browserbase.gemini_api_key"];
        assert_eq!(keys, all);
    }

    #[test]
    fn every_key_that_cannot_be_told_is_named() {
        let problems = spelt(&json!({
            "token": "t", "apiKye": "k", "colour": 1, "apiKey": "", "timeZone": "a", "time_zone": "b"
        }));
        insta::assert_snapshot!(problems.unwrap_err().join("\n"), @r"
        `token` can mean `demo.user.token`, `demo.team.token`: write it out
        `apiKye` is not known (did you mean `demo.api_key`?)
        `colour` is not known: this server takes `demo.api_key`, `demo.user.token`, `demo.team.token`, `jira`, `jira.url`, `time_zone`
        `apiKey` is a secret: give it as text that is not empty
        `time_zone` is given twice: it is another spelling of `time_zone`
        ");
    }

    #[test]
    fn servers_are_known_in_every_spelling() {
        let snapshot = Catalog::load(&[]).unwrap().snapshot();
        for name in ["github-official", "githubOfficial", "github_official"] {
            assert_eq!(server(&snapshot, name).unwrap().as_str(), "github-official", "{name}");
        }
        let problem = server(&snapshot, "browsrbase").unwrap_err();
        assert!(problem.contains("`browserbase`"), "{problem}");
    }

    #[test]
    fn a_spelling_of_two_servers_is_neither() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.yaml");
        std::fs::write(&path, "registry: {my-tool: {image: x}, my_tool: {image: other}}").unwrap();
        let snapshot = Catalog::of_file(&path).unwrap().snapshot();
        assert_eq!(server(&snapshot, "my_tool").unwrap().as_str(), "my_tool");
        let problem = server(&snapshot, "myTool").unwrap_err();
        assert_eq!(problem, "several servers can be meant: write it as one of `my-tool`, `my_tool`");
    }
}
