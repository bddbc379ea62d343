use super::*;
use crate::mysql::grants::Grants;

fn account(user: &str, host: &str, locked: bool) -> Account {
    Account {
        user: user.to_owned(),
        host: host.to_owned(),
        locked,
    }
}

fn choice(patterns: &[&str], accounts: &[Account]) -> Choice {
    let patterns: Vec<Pattern> = patterns.iter().map(|text| Pattern::parse(text)).collect();
    Choice::make(&patterns, accounts, &["fence", "planb"])
}

fn there() -> Vec<Account> {
    vec![
        account("app", "%", false),
        account("app", "10.0.%", true),
        account("app_jobs", "10.1.%", false),
        account("fence", "%", false),
        account("planb", "10.0.%", false),
        account("mysql.sys", "localhost", true),
        account("rdsadmin", "localhost", false),
        account("batch", "%", false),
    ]
}

fn names(accounts: &[Account]) -> Vec<String> {
    accounts.iter().map(Account::name).collect()
}

#[test]
fn a_name_alone_is_every_account_of_that_name() {
    let wanted = ["app@%", "app@10.0.%"];
    assert_eq!(names(&choice(&["app"], &there()).listed), wanted);
    assert_eq!(names(&choice(&["app@%"], &there()).listed), wanted);
    assert_eq!(names(&choice(&["app@10.%"], &there()).listed), ["app@10.0.%"]);
    // An underscore stands for itself.
    assert!(
        choice(&["app_jobs"], &[account("appXjobs", "%", false)])
            .listed
            .is_empty()
    );
}

#[test]
fn what_must_go_on_working_is_never_listed() {
    let all = choice(&["*"], &there());
    assert_eq!(
        names(&all.listed),
        ["app@%", "app@10.0.%", "app_jobs@10.1.%", "batch@%"]
    );
    assert!(all.forbidden.is_empty() && all.others.is_empty());
    let own = choice(&["app", "fence", "planb@10.0.%"], &there());
    assert_eq!(own.forbidden, ["fence", "planb@10.0.%"]);
    let held = accounts(&own, true, &[], &[]);
    assert!(
        matches!(&held, Held::Failed(why) if why.contains("an account of its own")),
        "{held:?}"
    );
}

#[test]
fn who_else_can_log_in_is_told_and_so_is_a_pattern_without_an_account() {
    let choice = choice(&["app", "apq"], &there());
    assert_eq!(choice.others, ["app_jobs@10.1.%", "batch@%"]);
    assert_eq!(choice.unmatched, ["apq"]);
}

fn all_locked() -> Choice {
    choice(&["app"], &[account("app", "%", true)])
}

fn tried(tried: Try) -> Vec<(String, Try)> {
    vec![("app".to_owned(), tried)]
}

#[test]
fn locked_accounts_are_proven_only_by_a_refused_login() {
    let held = |tries: &[(String, Try)]| accounts(&all_locked(), true, &[], tries);
    assert_eq!(held(&tried(Try::Locked)), Held::Proven);
    assert!(matches!(held(&[]), Held::Unprovable(why) if why.contains("nobody tried")));
    assert!(matches!(
        held(&tried(Try::Unknown("wrong password".into()))),
        Held::Unprovable(_)
    ));
    assert!(matches!(held(&tried(Try::Open("app@10.9.%".into()))), Held::Failed(why) if why.contains("app@10.9.%")));
    assert!(matches!(
        held(&tried(Try::ReadOnly("app@10.9.%".into()))),
        Held::Failed(_)
    ));
    // One that says nothing is not made good by one that does.
    let both = [tried(Try::Locked), tried(Try::Unknown("unreachable".into()))].concat();
    assert!(matches!(held(&both), Held::Unprovable(_)));
}

#[test]
fn an_account_that_stays_open_fails_and_one_that_is_missing_is_unprovable() {
    let open = choice(&["app"], &[account("app", "%", false)]);
    assert!(matches!(
        accounts(&open, true, &[], &tried(Try::Locked)),
        Held::Failed(_)
    ));
    assert!(matches!(accounts(&open, false, &[], &[]), Held::NotAllowed(why) if why.contains("CREATE USER")));
    let refused = [("app@%".to_owned(), "1227".to_owned())];
    assert!(matches!(accounts(&open, true, &refused, &[]), Held::Failed(why) if why.contains("app@% (1227)")));
    let gone = choice(&["app", "apq"], &[account("app", "%", true)]);
    assert!(matches!(accounts(&gone, true, &[], &tried(Try::Locked)), Held::Unprovable(why) if why.contains("apq")));
    let none = Choice::default();
    assert!(matches!(
        accounts(&none, true, &[], &tried(Try::Locked)),
        Held::Unprovable(_)
    ));
}

fn rung(part: Part, held: Held) -> Rung {
    Rung::new(part, format!("{part:?}"), held)
}

#[test]
fn the_verdict_over_every_ladder() {
    let held = [
        Held::Proven,
        Held::Failed("f".into()),
        Held::Unprovable("u".into()),
        Held::NotAllowed("n".into()),
    ];
    let mut proven = 0;
    for a in &held {
        for b in &held {
            for c in &held {
                for d in held.iter().map(Some).chain([None]) {
                    for reach in [None, Some(Held::Unprovable("gone".into()))] {
                        let mut rungs = vec![
                            rung(Part::Accounts, a.clone()),
                            rung(Part::Events, b.clone()),
                            rung(Part::Sessions, c.clone()),
                        ];
                        rungs.extend(d.map(|d| rung(Part::ReadOnly, d.clone())));
                        rungs.extend(reach.clone().map(|held| rung(Part::Reach, held)));
                        let failed = rungs.iter().any(|rung| matches!(rung.held, Held::Failed(_)));
                        let closed = [a, b, c].iter().all(|held| **held == Held::Proven) || d == Some(&Held::Proven);
                        match verdict(&rungs) {
                            Verdict::Failed(why) => assert!(failed && why.contains('f')),
                            Verdict::Proven => {
                                proven += 1;
                                assert!(!failed && closed && reach.is_none(), "{rungs:?}");
                            }
                            Verdict::Unprovable(why) => {
                                assert!(!failed && !why.is_empty() && (!closed || reach.is_some()))
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(proven > 0);
    assert!(matches!(verdict(&[]), Verdict::Unprovable(_)));
}

#[test]
fn a_server_that_is_away_is_unprovable_and_one_that_refuses_has_failed() {
    let away = DbError::Unreachable {
        place: "db:3306".into(),
        detail: "refused".into(),
    };
    assert!(matches!(verdict(&[broken(&away)]), Verdict::Unprovable(why) if why.contains("nobody could try")));
    let login = DbError::Login {
        place: "db:3306".into(),
        user: "fence".into(),
        detail: "1045".into(),
    };
    assert!(matches!(verdict(&[broken(&login)]), Verdict::Failed(_)));
}

#[test]
fn sessions_are_ended_in_the_way_that_the_account_may() {
    let of = |family, line: &str, routines: &[&str]| {
        let routines: Vec<String> = routines.iter().map(ToString::to_string).collect();
        Means::of(family, &Grants::parse([line]), &routines)
    };
    let basic = "GRANT CREATE USER, PROCESS, EVENT ON *.* TO `fence`@`%`";
    assert_eq!(of(Family::MySql, basic, &[]).kill, None);
    assert_eq!(of(Family::MySql, basic, &["rds_kill"]).kill, Some(Kill::Rds));
    assert_eq!(of(Family::MariaDb, basic, &["rds_kill"]).kill, Some(Kill::Rds));
    assert_eq!(of(Family::MySql, basic, &["az_kill"]).kill, Some(Kill::Azure));
    let own = "GRANT CONNECTION_ADMIN,SYSTEM_VARIABLES_ADMIN ON *.* TO `fence`@`%`";
    let means = of(Family::MySql, own, &["rds_kill"]);
    assert_eq!(means.kill, Some(Kill::Plain));
    assert!(means.read_only && means.stop_events && !means.lock);
    // It could not take its own change back.
    let half = of(Family::MySql, "GRANT SYSTEM_VARIABLES_ADMIN ON *.* TO `fence`@`%`", &[]);
    assert!(!half.read_only && half.stop_events);
    let maria = of(
        Family::MariaDb,
        "GRANT CONNECTION ADMIN, READ_ONLY ADMIN ON *.* TO `fence`@`%`",
        &[],
    );
    assert!(maria.kill == Some(Kill::Plain) && maria.read_only && !maria.stop_events);
}

#[test]
fn read_only_is_proven_for_all_by_a_refused_write_of_ours_or_of_each() {
    let choice = choice(&["app", "batch"], &there());
    assert_eq!(read_only(&choice, true, &[]), Held::Proven);
    assert!(matches!(read_only(&choice, false, &[]), Held::Unprovable(_)));
    let one = tried(Try::ReadOnly("app@%".into()));
    assert!(matches!(read_only(&choice, false, &one), Held::Unprovable(why) if why.contains("batch")));
    let both = [one, vec![("batch".to_owned(), Try::ReadOnly("batch@%".into()))]].concat();
    assert_eq!(read_only(&choice, false, &both), Held::Proven);
    assert!(matches!(
        read_only(&choice, false, &tried(Try::Open("app@%".into()))),
        Held::Failed(_)
    ));
}
