//! Secrets: references are read strictly, the first that answers wins, a dead cloud costs five seconds at most, and no
//! value is ever in a message. AWS is moto (`PLANB_LAB_MOTO`, from `scripts/lab run`).
//!
//! What a resolver finds depends on the environment of the whole process, so those tests run as children of this
//! program with an environment of their own: `child` starts the ignored test of the same name.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, Region};
use planb::config::AzureAuth;
use planb::secret::{Reference, ReferenceError, Resolver, Secret, SecretError, SecretRef};
use planb::source::rds::{Rds, RdsError};
use proptest::prelude::*;

const SECRET: &str = "hunter2-Tr0ub4dor";
const SLACK: Duration = Duration::from_millis(1500);

// --- references ----------------------------------------------------------------------------------------

#[test]
fn references_are_read_and_written_the_same() {
    for text in [
        "env:PLANB_SOURCE_PASSWORD",
        "file:/etc/planb/source-password",
        "credential:planb-source",
        "aws-secret:planb/prod",
        "aws-secret:planb/prod#azure_storage_key",
        "aws-secret:arn:aws:secretsmanager:ap-northeast-2:111122223333:secret:planb/prod-AbCdEf#key with space",
        "azure-keyvault:kv-dr/storage-key",
    ] {
        let reference: Reference = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(reference.to_string(), text);
    }
}

#[test]
fn what_is_no_reference_is_refused_without_being_repeated() {
    for text in [
        SECRET,
        "",
        ":",
        "env:",
        "env:1A",
        "env:A B",
        "env:A=hunter2",
        "ENV:A",
        "file:",
        "file:relative",
        "file:/",
        "credential:",
        "credential:../x",
        "credential:a/b",
        "aws-secret:",
        "aws-secret:#key",
        "aws-secret:id#",
        "aws-secret:a b",
        "azure-keyvault:kv-dr",
        "azure-keyvault:kv-dr/",
        "azure-keyvault:evil.example.com/x",
        "azure-keyvault:kv/a/b",
        "https://user:hunter2@example.com",
        " env:A",
    ] {
        let error = SecretRef::parse(text).expect_err(text);
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    assert_eq!(SecretRef::parse_list([]), Err(ReferenceError::Empty));
}

proptest! {
    #[test]
    fn any_reference_that_is_read_is_written_back(text in "(env|file|credential|aws-secret|azure-keyvault):[ -~]{0,40}") {
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(reference.to_string(), text);
        }
    }
}

// --- this machine ----------------------------------------------------------------------------------------

async fn resolve(texts: &[&str]) -> Result<String, SecretError> {
    let reference = SecretRef::parse_list(texts.iter().copied()).unwrap();
    Resolver::new(None)
        .resolve(&reference)
        .await
        .map(|secret| secret.expose().to_owned())
}

fn file(directory: &Path, name: &str, content: &[u8]) -> String {
    let path = directory.join(name);
    std::fs::write(&path, content).unwrap();
    format!("file:{}", path.display())
}

#[tokio::test]
async fn a_file_gives_its_text_without_the_last_newline() {
    let directory = tempfile::tempdir().unwrap();
    let line = file(directory.path(), "line", format!("{SECRET}\n").as_bytes());
    assert_eq!(resolve(&[&line]).await.unwrap(), SECRET);
    let blank = file(directory.path(), "blank", b" a b \n\n");
    assert_eq!(resolve(&[&blank]).await.unwrap(), " a b \n");
}

#[tokio::test]
async fn a_file_that_is_no_secret_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let started = Instant::now();
    for reference in [
        file(directory.path(), "empty", b""),
        file(directory.path(), "newline", b"\n"),
        file(directory.path(), "binary", b"\xff\xfe"),
        file(directory.path(), "long", &vec![b'x'; 65 * 1024]),
        format!("file:{}", directory.path().display()),
        format!("file:{}/none", directory.path().display()),
        format!("file:{}", pipe.display()),
    ] {
        let error = resolve(&[&reference]).await.unwrap_err();
        assert!(
            matches!(error, SecretError::Missing { .. }) && error.is_permanent(),
            "{error}"
        );
        assert!(error.to_string().contains(&reference), "{error}");
    }
    assert!(started.elapsed() < SLACK, "nothing may wait for a pipe's writer");
}

#[tokio::test]
async fn the_first_reference_that_answers_wins() {
    let directory = tempfile::tempdir().unwrap();
    let first = file(directory.path(), "first", b"one");
    let second = file(directory.path(), "second", b"two");
    let none = format!("file:{}/none", directory.path().display());
    assert_eq!(resolve(&[&first, &second]).await.unwrap(), "one");
    assert_eq!(
        resolve(&[&none, "env:PLANB_TEST_NOT_SET", &second]).await.unwrap(),
        "two"
    );

    let error = resolve(&[&none, "env:PLANB_TEST_NOT_SET"]).await.unwrap_err();
    let SecretError::AllFailed(failures) = &error else {
        panic!("{error}")
    };
    assert_eq!(failures.len(), 2);
    assert!(
        error.to_string().contains("env:PLANB_TEST_NOT_SET") && error.is_permanent(),
        "{error}"
    );
}

#[test]
fn a_secret_prints_nothing() {
    let secret = Secret::new(SECRET);
    let holder = Some((&secret, [secret.clone()]));
    assert!(!format!("{secret:?} {holder:#?}").contains(SECRET));
}

// --- tests with an environment of their own --------------------------------------------------------------

/// Runs this program's ignored test `name` with `environment` and little else. Its output comes back for inspection.
#[track_caller]
fn child(name: &str, environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"]);
    command
        .env_clear()
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("HOME", "/nonexistent")
        .env("RUST_BACKTRACE", "0");
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    let output = command.envs(environment.iter().copied()).output().unwrap();
    let told = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success() && told.contains("1 passed"), "{name}:\n{told}");
    told
}

#[track_caller]
fn moto() -> String {
    std::env::var("PLANB_LAB_MOTO").expect("PLANB_LAB_MOTO is not set: run scripts/test")
}

#[track_caller]
fn with_aws(name: &str) -> String {
    let moto = moto();
    let environment = [
        ("AWS_ENDPOINT_URL", moto.as_str()),
        ("AWS_REGION", "ap-northeast-2"),
        ("AWS_ACCESS_KEY_ID", "testing"),
        ("AWS_SECRET_ACCESS_KEY", "testing"),
    ];
    child(name, &environment)
}

/// An address that takes connections and never says anything: what a dead region looks like from outside.
fn silent() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    (listener, address)
}

/// An address where nothing listens.
fn closed() -> String {
    let (listener, address) = silent();
    drop(listener);
    address
}

#[test]
fn variables_and_credentials_are_found() {
    let directory = tempfile::tempdir().unwrap();
    file(directory.path(), "planb-source", b"from systemd\n");
    let credentials = directory.path().to_str().unwrap();
    child(
        "child_variables_and_credentials",
        &[
            ("PLANB_TEST", SECRET),
            ("PLANB_EMPTY", ""),
            ("CREDENTIALS_DIRECTORY", credentials),
        ],
    );
    child("child_no_credentials", &[]);
}

#[tokio::test]
#[ignore = "run by variables_and_credentials_are_found"]
async fn child_variables_and_credentials() {
    assert_eq!(resolve(&["env:PLANB_TEST"]).await.unwrap(), SECRET);
    assert_eq!(resolve(&["credential:planb-source"]).await.unwrap(), "from systemd");
    assert!(
        matches!(resolve(&["env:PLANB_EMPTY"]).await, Err(SecretError::Missing { .. })),
        "empty is not set"
    );
    assert!(matches!(
        resolve(&["credential:other"]).await,
        Err(SecretError::Missing { .. })
    ));
}

#[tokio::test]
#[ignore = "run by variables_and_credentials_are_found"]
async fn child_no_credentials() {
    let error = resolve(&["credential:planb-source"]).await.unwrap_err();
    assert!(error.to_string().contains("LoadCredential"), "{error}");
}

// --- AWS Secrets Manager -------------------------------------------------------------------------------------

#[test]
fn aws_secrets_are_found_by_name_and_arn_and_key() {
    with_aws("child_aws_secrets");
}

async fn aws() -> aws_config::SdkConfig {
    aws_config::defaults(BehaviorVersion::latest()).load().await
}

#[tokio::test]
#[ignore = "run by aws_secrets_are_found_by_name_and_arn_and_key"]
async fn child_aws_secrets() {
    let client = aws_sdk_secretsmanager::Client::new(&aws().await);
    // moto keeps its state between tests of one lab: names are not used twice.
    let name = format!("planb/test-{}", std::process::id());
    let json = BTreeMap::from([("storage_key", SECRET), ("other", "x")]);
    let json = serde_json::to_string(&json).unwrap();
    let made = client
        .create_secret()
        .name(&name)
        .secret_string(&json)
        .send()
        .await
        .unwrap();
    let arn = made.arn.unwrap();

    assert_eq!(
        resolve(&[&format!("aws-secret:{name}#storage_key")]).await.unwrap(),
        SECRET
    );
    assert_eq!(
        resolve(&[&format!("aws-secret:{arn}#storage_key")]).await.unwrap(),
        SECRET
    );
    assert_eq!(resolve(&[&format!("aws-secret:{name}")]).await.unwrap(), json);
    let error = resolve(&[&format!("aws-secret:{name}#none")]).await.unwrap_err();
    assert!(
        matches!(error, SecretError::Missing { .. }) && !error.to_string().contains(SECRET),
        "{error}"
    );

    // The ARN's own region is asked, not this machine's.
    let tokyo = aws().await.into_builder().region(Region::new("ap-northeast-1")).build();
    let tokyo = aws_sdk_secretsmanager::Client::new(&tokyo);
    let made = tokyo
        .create_secret()
        .name(format!("{name}-tokyo"))
        .secret_string("tokyo")
        .send()
        .await
        .unwrap();
    assert_eq!(
        resolve(&[&format!("aws-secret:{}", made.arn.unwrap())]).await.unwrap(),
        "tokyo"
    );
    let elsewhere = resolve(&[&format!("aws-secret:{name}-tokyo")]).await;
    assert!(
        matches!(elsewhere, Err(SecretError::Missing { .. })),
        "a name is looked up here"
    );

    let binary = aws_sdk_secretsmanager::primitives::Blob::new(b"text from a file".to_vec());
    client
        .create_secret()
        .name(format!("{name}-binary"))
        .secret_binary(binary)
        .send()
        .await
        .unwrap();
    assert_eq!(
        resolve(&[&format!("aws-secret:{name}-binary")]).await.unwrap(),
        "text from a file"
    );

    client.delete_secret().secret_id(&name).send().await.unwrap();
    let error = resolve(&[&format!("aws-secret:{name}")]).await.unwrap_err();
    assert!(
        matches!(error, SecretError::Missing { .. }),
        "scheduled for deletion: {error}"
    );
    let error = resolve(&["aws-secret:planb/never-was"]).await.unwrap_err();
    assert!(
        error.is_permanent() && error.to_string().contains("planb/never-was"),
        "{error}"
    );
}

#[test]
fn aws_credentials_come_from_a_profile_too() {
    let directory = tempfile::tempdir().unwrap();
    let credentials = directory.path().join("credentials");
    std::fs::write(
        &credentials,
        "[planb]\naws_access_key_id = testing\naws_secret_access_key = testing\n",
    )
    .unwrap();
    let config = directory.path().join("config");
    std::fs::write(&config, "[profile planb]\nregion = ap-northeast-2\n").unwrap();
    let moto = moto();
    let environment = [
        ("AWS_ENDPOINT_URL", moto.as_str()),
        ("AWS_PROFILE", "planb"),
        ("AWS_SHARED_CREDENTIALS_FILE", credentials.to_str().unwrap()),
        ("AWS_CONFIG_FILE", config.to_str().unwrap()),
    ];
    child("child_aws_answers_missing", &environment);
}

#[test]
fn aws_credentials_come_from_a_web_identity_as_on_eks() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "a.b.c").unwrap();
    let moto = moto();
    let environment = [
        ("AWS_ENDPOINT_URL", moto.as_str()),
        ("AWS_REGION", "ap-northeast-2"),
        ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/planb"),
        ("AWS_ROLE_SESSION_NAME", "planb"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
    ];
    child("child_aws_answers_missing", &environment);
}

/// That AWS says there is no such secret proves that the credentials were found and a signed request was answered.
#[tokio::test]
#[ignore = "run by the tests of AWS's credential chain"]
async fn child_aws_answers_missing() {
    let error = resolve(&["aws-secret:planb/never-was"]).await.unwrap_err();
    assert!(matches!(error, SecretError::Missing { .. }), "{error}");
}

#[test]
fn without_aws_credentials_it_is_told_and_the_next_reference_is_used() {
    child(
        "child_no_aws",
        &[
            ("AWS_ENDPOINT_URL", &closed()),
            ("AWS_REGION", "ap-northeast-2"),
            ("PLANB_TEST", SECRET),
        ],
    );
    child("child_no_aws", &[("PLANB_TEST", SECRET)]);
}

#[test]
fn what_aws_lacks_is_told() {
    child(
        "child_no_region",
        &[("AWS_ACCESS_KEY_ID", "testing"), ("AWS_SECRET_ACCESS_KEY", "testing")],
    );
    child("child_no_keys", &[("AWS_REGION", "ap-northeast-2")]);
}

#[tokio::test]
#[ignore = "run by what_aws_lacks_is_told"]
async fn child_no_region() {
    let error = resolve(&["aws-secret:planb/prod"]).await.unwrap_err();
    assert!(error.to_string().contains("set AWS_REGION"), "{error}");
}

#[tokio::test]
#[ignore = "run by what_aws_lacks_is_told"]
async fn child_no_keys() {
    let error = resolve(&["aws-secret:planb/prod"]).await.unwrap_err();
    assert!(error.to_string().contains("no usable AWS credentials"), "{error}");
}

#[test]
fn a_dead_aws_costs_five_seconds_at_most_and_the_next_reference_is_used() {
    let keys = [
        ("AWS_ACCESS_KEY_ID", "testing"),
        ("AWS_SECRET_ACCESS_KEY", "testing"),
        ("PLANB_TEST", SECRET),
    ];
    let (_listener, silent) = silent();
    for address in [silent, closed()] {
        let mut environment = vec![("AWS_ENDPOINT_URL", address.as_str()), ("AWS_REGION", "ap-northeast-2")];
        environment.extend(keys);
        child("child_no_aws", &environment);
    }
}

#[tokio::test]
#[ignore = "run by the tests in which AWS is not there"]
async fn child_no_aws() {
    let started = Instant::now();
    assert_eq!(
        resolve(&["aws-secret:planb/prod#key", "env:PLANB_TEST"]).await.unwrap(),
        SECRET
    );
    assert!(
        started.elapsed() < planb::aws::PATIENCE + SLACK,
        "took {:?}",
        started.elapsed()
    );
    let error = resolve(&["aws-secret:planb/prod#key"]).await.unwrap_err();
    assert!(
        matches!(error, SecretError::Unavailable { .. }) && !error.is_permanent(),
        "{error}"
    );
}

// --- Azure Key Vault: answers are tested inside the crate, without a network ------------------------------------

#[test]
fn a_key_vault_that_nobody_can_log_in_to_does_not_hold_up_the_next_reference() {
    child("child_no_azure", &[("PLANB_TEST", SECRET)]);
}

#[tokio::test]
#[ignore = "run by a_key_vault_that_nobody_can_log_in_to_does_not_hold_up_the_next_reference"]
async fn child_no_azure() {
    let secret = SecretRef::parse("file:/nonexistent/client-secret").unwrap();
    let client_secret = AzureAuth::ClientSecret {
        tenant_id: "t".into(),
        client_id: "c".into(),
        secret,
    };
    let workload = AzureAuth::WorkloadIdentity {
        tenant_id: None,
        client_id: None,
    };
    let references = SecretRef::parse_list(["azure-keyvault:kv-dr/key", "env:PLANB_TEST"]).unwrap();
    for auth in [None, Some(AzureAuth::AzLogin), Some(client_secret), Some(workload)] {
        let started = Instant::now();
        let resolver = Resolver::new(auth.clone());
        assert_eq!(
            resolver.resolve(&references).await.unwrap().expose(),
            SECRET,
            "{auth:?}"
        );
        assert!(
            started.elapsed() < planb::aws::PATIENCE + SLACK,
            "{auth:?} took {:?}",
            started.elapsed()
        );
    }
}

// --- RDS -----------------------------------------------------------------------------------------------------------

#[test]
fn rds_tells_where_an_instance_is_and_in_what_state() {
    with_aws("child_rds");
}

#[tokio::test]
#[ignore = "run by rds_tells_where_an_instance_is_and_in_what_state"]
async fn child_rds() {
    let id = format!("planb-{}", std::process::id());
    let client = aws_sdk_rds::Client::new(&aws().await);
    let create = |id: &str, engine: &str| {
        let request = client.create_db_instance().db_instance_identifier(id).engine(engine);
        request
            .db_instance_class("db.t4g.micro")
            .allocated_storage(20)
            .master_username("admin")
    };
    let secret = create(&id, "mysql")
        .master_user_password("long-enough-1")
        .port(3307)
        .multi_az(true);
    secret
        .backup_retention_period(7)
        .enable_iam_database_authentication(true)
        .send()
        .await
        .unwrap();

    let instance = Rds::default().describe(&id, None).await.unwrap();
    assert!(instance.host.starts_with(&id), "{instance:?}");
    assert_eq!((instance.port, instance.engine.as_str()), (3307, "mysql"));
    assert!(instance.status.is_available(), "{instance:?}");
    assert!(
        instance.version.is_some() && instance.ca_certificate.is_some(),
        "{instance:?}"
    );
    assert_eq!((instance.multi_az, instance.iam_login), (Some(true), Some(true)));
    assert_eq!((instance.backup_retention_days, instance.replica_of), (Some(7), None));

    create(&format!("{id}-pg"), "postgres")
        .master_user_password("long-enough-1")
        .send()
        .await
        .unwrap();
    let error = Rds::default().describe(&format!("{id}-pg"), None).await.unwrap_err();
    assert!(
        matches!(error, RdsError::Unusable { .. }) && error.is_permanent(),
        "{error}"
    );

    let error = Rds::default()
        .describe("planb-absent", Some("ap-northeast-2"))
        .await
        .unwrap_err();
    assert!(matches!(error, RdsError::NoSuchInstance { .. }) && error.is_permanent());
    assert!(
        error.to_string().contains("planb-absent is not in ap-northeast-2"),
        "{error}"
    );
    let error = Rds::default().describe(&id, Some("ap-northeast-1")).await.unwrap_err();
    assert!(
        matches!(error, RdsError::NoSuchInstance { .. }),
        "another region: {error}"
    );
}

#[test]
fn a_login_token_is_made_without_the_network() {
    let environment = [
        ("AWS_ENDPOINT_URL", &*closed()),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
    ];
    let told = child("child_token", &environment);
    assert!(!told.contains(SECRET), "{told}");
    child("child_no_token", &[("AWS_REGION", "eu-west-1")]);
}

#[tokio::test]
#[ignore = "run by a_login_token_is_made_without_the_network"]
async fn child_token() {
    let rds = Rds::default();
    let host = "prod.abc.ap-northeast-2.rds.amazonaws.com";
    let token = rds
        .auth_token(host, 3306, "planb", Some("ap-northeast-2"))
        .await
        .unwrap();
    let text = token.expose();
    assert!(
        text.starts_with(&format!("{host}:3306/?Action=connect&DBUser=planb&")),
        "{text}"
    );
    for part in [
        "X-Amz-Expires=900",
        "ap-northeast-2%2F",
        "rds-db%2Faws4_request",
        "X-Amz-Signature=",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!format!("{token:?}").contains("Signature"));
    let here = rds.auth_token(host, 3306, "planb", None).await.unwrap();
    assert!(
        here.expose().contains("eu-west-1%2F"),
        "the region of this machine, never us-east-1 by default"
    );

    for (host, user) in [
        ("a b", "planb"),
        ("", "planb"),
        ("a/b", "planb"),
        ("a", ""),
        ("a", "p&Action=x"),
        ("a", "ü"),
    ] {
        let error = rds.auth_token(host, 3306, user, None).await.unwrap_err();
        assert!(
            matches!(error, RdsError::BadTokenRequest { .. }) && error.is_permanent(),
            "{host} {user}: {error}"
        );
    }
}

#[tokio::test]
#[ignore = "run by a_login_token_is_made_without_the_network"]
async fn child_no_token() {
    let error = Rds::default()
        .auth_token("a.example.com", 3306, "planb", None)
        .await
        .unwrap_err();
    assert!(
        matches!(error, RdsError::Token { .. }) && !error.is_permanent(),
        "{error}"
    );
}

#[test]
fn a_dead_rds_is_unavailable_within_the_bound() {
    let (_listener, silent) = silent();
    for address in [silent, closed()] {
        let environment = [
            ("AWS_ENDPOINT_URL", address.as_str()),
            ("AWS_REGION", "ap-northeast-2"),
            ("AWS_ACCESS_KEY_ID", "testing"),
            ("AWS_SECRET_ACCESS_KEY", "testing"),
        ];
        child("child_dead_rds", &environment);
    }
}

#[tokio::test]
#[ignore = "run by a_dead_rds_is_unavailable_within_the_bound"]
async fn child_dead_rds() {
    let started = Instant::now();
    let error = Rds::default().describe("prod", None).await.unwrap_err();
    assert!(
        matches!(error, RdsError::Unavailable { .. }) && !error.is_permanent(),
        "{error}"
    );
    assert!(
        started.elapsed() < planb::aws::PATIENCE + SLACK,
        "took {:?}",
        started.elapsed()
    );
}
