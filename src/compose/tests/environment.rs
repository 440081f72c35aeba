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

#[test]
fn a_file_of_variables_whose_place_does_not_show_is_not_read() {
    let hidden = folder(&[("\u{1b}[2Kgone/x.env", "HIDDEN=hidden-value\n")]);
    let place = hidden.path().join("\u{1b}[2Kgone/x.env");
    let services = "services: {a: {image: x, env_file: [one.env]}, b: {image: x, command: [\"${HIDDEN}\"]}}";
    let folder = folder(&[(FILE, services)]);
    for link in ["one.env", ".env"] {
        std::os::unix::fs::symlink(&place, folder.path().join(link)).unwrap();
    }
    let file = read_in(&folder);
    let told = problems(&file);
    for at in ["error: .env: is left out", "services.a.env_file[0]: "] {
        assert!(
            told.lines().any(|line| line.contains(at) && line.contains("has characters that do not show")),
            "{told}"
        );
    }
    let [b] = &file.definitions[..] else { panic!("{file:?}") };
    assert_eq!((b.shown.as_str(), b.values.len()), ("image x; command ${HIDDEN}; is given the values of HIDDEN", 0));
}
