//! A service's variables: what is shown of them, and where they are read from.

use super::*;

#[test]
fn a_token_that_is_written_in_the_environment_is_not_shown() {
    let yaml = r#"services:
  a:
    image: x
    environment:
      API_KEY: "${API_KEY:-sk-live-0123456789abcdef01234}"
      TOKEN: "hunter2${SUFFIX:-}"
      DB_PASSWORD: "/x9+hunter2"
      OTHER_SECRET: "${A:+${B:-hunter2}}"
      PLAIN: "${A:-sk-live-0123456789abcdef01234}"
      KEPT_TOKEN: "${TOKEN}${NONE:-}${A:-$B}"
      FOLDER: "${A:-/data}"
"#;
    let folder = folder(&[(FILE, yaml)]);
    for person in [Environment::new(), ["A", "B", "API_KEY"].map(|name| (name.to_owned(), "sk-x".to_owned())).into()] {
        let file = read(&folder.path().join(FILE), &person).unwrap();
        let redacted =
            ["API_KEY", "TOKEN", "DB_PASSWORD", "OTHER_SECRET", "PLAIN"].map(|name| format!("{name}=[redacted] "));
        let set = format!("{}KEPT_TOKEN=${{TOKEN}}${{NONE:-}}${{A:-$B}} FOLDER=${{A:-/data}}", redacted.concat());
        let shown = format!("image x; environment {set}; is given the values of A, API_KEY, B, NONE, SUFFIX, TOKEN");
        assert_eq!(file.definitions[0].shown, shown, "whatever is set");
    }
}
