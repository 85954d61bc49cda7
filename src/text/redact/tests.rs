use proptest::prelude::*;

use super::*;

fn argv(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

#[test]
fn commands_are_shown_without_their_secrets() {
    let redactor = Redactor::default();
    for (args, shown) in [
        (
            &["node", "server.js", "--port", "{port}"][..],
            "node server.js --port {port}",
        ),
        (&["x", "--token", "hunter2"], "x --token ***"),
        (
            &["x", "--token=hunter2", "--api-key=a"],
            "x --token=*** --api-key=***",
        ),
        (&["x", "--token", "--verbose"], "x --token --verbose"),
        // A value with blanks is a whole argument only after a flag; a variable's ends where a
        // shell's would.
        (
            &["env", "DB_PASSWORD=a b", "x"],
            "env 'DB_PASSWORD=*** b' x",
        ),
        (
            &["curl", "-H", "Authorization: Bearer abc.def"],
            "curl -H 'Authorization: ***'",
        ),
        (
            &["x", "postgres://u:p%40ss@db/x"],
            "x postgres://u:***@db/x",
        ),
        (
            &["sh", "-c", "TOKEN='a b' exec \"x\""],
            r#"sh -c 'TOKEN='\''***'\'' exec "x"'"#,
        ),
        (
            &["x", "--keyboard", "us", "--monkey=y"],
            "x --keyboard us --monkey=y",
        ),
        (&["x", "--token-file", "/run/t"], "x --token-file /run/t"),
        (&["x", "a\u{1b}[2Jb"], r"x 'a\x1b[2Jb'"),
    ] {
        assert_eq!(redactor.command(&argv(args)), shown);
    }
}

#[test]
fn texts_are_shown_without_their_secrets() {
    let redactor = Redactor::new(&["pin".into()]);
    for (text, shown) in [
        (
            "no bearer token, so /_gateway/ answers nobody",
            "no bearer token, so /_gateway/ answers nobody",
        ),
        (
            "Bearer authentication, as in bearer abcdefg",
            "Bearer authentication, as in bearer ***",
        ),
        (r#"{"apiKey":"abc","n":1}"#, r#"{"apiKey":"***","n":1}"#),
        (
            "GET /?token=abc&x=1 HTTP/1.1",
            "GET /?token=***&x=1 HTTP/1.1",
        ),
        ("x-api-key: abc", "x-api-key: ***"),
        (
            "started with --secret abc --x",
            "started with --secret *** --x",
        ),
        ("Bearer abc", "Bearer ***"),
        ("basic questions", "basic questions"),
        ("Basic YWJj", "Basic ***"),
        ("KeyError: 'name'", "KeyError: 'name'"),
        ("unknown key: x", "unknown key: x"),
        ("pin=1234", "pin=***"),
        ("http://127.0.0.1:80/@x", "http://127.0.0.1:80/@x"),
        ("password", "password"),
        ("ünïcode token=ä ö", "ünïcode token=*** ö"),
    ] {
        assert_eq!(redactor.text(text), shown);
    }
}

#[test]
fn what_was_learned_is_hidden_everywhere_and_by_every_clone() {
    let redactor = Redactor::default();
    let clone = redactor.clone();
    redactor.learn_env("SERVICE_KEY", "first-line-of-it\nsecond-line-of-it");
    redactor.learn_command(&argv(&["x", "--password", "correct horse"]));
    redactor.learn_env("HOME", "/home/someone");
    redactor.learn_env("SHORT_TOKEN", "1234");
    assert_eq!(
        clone.text("got second-line-of-it, correct horse, port 1234 in /home/someone"),
        "got ***, ***, port 1234 in /home/someone"
    );
    assert_eq!(clone.env("API_TOKEN", "x"), "API_TOKEN=***");
    assert_eq!(clone.env("URL", "http://u:pw@h/"), "URL=http://u:***@h/");
}

#[test]
fn names_that_people_give_to_secrets() {
    let redactor = Redactor::default();
    for name in [
        "DB_PASS",
        "DBPASS",
        "PASS",
        "SMTP_PWD",
        "mysqlpwd",
        "JWT",
        "AUTH_JWT",
        "SENTRY_DSN",
        "dsn",
        "AWS_CREDS",
        "GITHUB_PAT",
        "DB_PW",
        "SESSION_COOKIE",
        "SLACK_WEBHOOK_URL",
        "TOTP_OTP",
        "API_TOKEN",
        "STRIPE_KEY",
        "WALLET_MNEMONIC",
    ] {
        assert_eq!(redactor.value(name, "x"), MASK, "{name}");
    }
    for name in [
        "PWD",
        "OLDPWD",
        "PATH",
        "COMPASS",
        "BYPASS",
        "PASSENGER_APP_ENV",
        "NODE_ENV",
        "PORT",
        "COLOR",
        "COOKIES",
        "PATCH",
        "TOKEN_FILE",
        "PGPASS_FILE",
        "KEYBOARD",
    ] {
        assert_eq!(redactor.value(name, "x"), "x", "{name}");
    }
    assert_eq!(redactor.text("# pass: 12, fail: 0"), "# pass: 12, fail: 0");
}

proptest! {
    #[test]
    fn a_canary_never_appears(canary in "CANARY[a-zA-Z0-9+/_.-]{6,24}", word in "(token|SECRET|db_password|Passwd|api-key|X-Api-Key|authorization|SIGNING_KEY)",
        before in "[ -~]{0,12}", shape in 0..8usize)
    {
        let redactor = Redactor::default();
        let args = match shape {
            0 => vec![format!("--{word}"), canary.clone()],
            1 => vec![format!("--{word}={canary}")],
            2 => vec![format!("{word}={canary}")],
            3 => vec!["-H".into(), format!("{word}: {canary}")],
            4 => vec![format!("http://user:{}@host/", canary.replace('/', "_"))],
            5 => vec!["-H".into(), format!("Authorization: Bearer {canary}")],
            6 => vec!["-c".into(), format!("export {word}='{canary}'; run")],
            _ => vec![format!("{{\"{word}\": \"{canary}\"}}")],
        };
        let secret = if shape == 4 { canary.replace('/', "_") } else { canary };
        let mut all = vec!["prog".to_owned()];
        all.extend(args);
        prop_assert!(!redactor.command(&all).contains(&secret), "{}", redactor.command(&all));
        prop_assert!(!redactor.text(&all.join(" ")).contains(&secret), "{}", redactor.text(&all.join(" ")));
        redactor.learn_command(&all);
        let anywhere = format!("{before}{secret}{before}");
        prop_assert!(!redactor.text(&anywhere).contains(&secret), "{}", redactor.text(&anywhere));
    }

    #[test]
    fn any_text_is_taken(text in any::<String>(), more in "[\"'=:@/ a-z]{0,40}") {
        let redactor = Redactor::default();
        redactor.text(&text);
        redactor.text(&format!("token{more}://a:{text}@{more}key={more}"));
    }
}
