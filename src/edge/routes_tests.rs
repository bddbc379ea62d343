use super::*;

fn routes(behaviours: &[(Option<&str>, &str)]) -> Routes {
    let host = |id: &str| (id.to_owned(), format!("{id}.example.com"));
    Routes {
        origins: ["alb", "s3", "azure"].map(host).into(),
        groups: BTreeMap::from([("both".to_owned(), vec!["alb".to_owned(), "azure".to_owned()])]),
        behaviours: behaviours
            .iter()
            .map(|(path, target)| Behaviour {
                path: path.map(str::to_owned),
                target: (*target).to_owned(),
            })
            .collect(),
        doubts: Vec::new(),
    }
}

fn azure() -> Origin {
    Origin {
        id: "azure".into(),
        domain: "azure.example.com".into(),
        path: String::new(),
    }
}

fn kept(routes: Routes) -> Kept {
    Kept {
        v: KEPT_VERSION,
        distribution: "E1".into(),
        etag: "1".into(),
        to: "azure".into(),
        routes,
        configuration: String::new(),
    }
}

fn after(routes: &Routes, retargets: &[Retarget]) -> Routes {
    let mut routes = routes.clone();
    for retarget in retargets {
        for behaviour in routes.behaviours.iter_mut().filter(|b| b.path == retarget.path) {
            behaviour.target = retarget.to.clone();
        }
    }
    routes
}

#[test]
fn every_behaviour_goes_to_the_origin_itself_groups_included() {
    let before = routes(&[
        (Some("/api/*"), "alb"),
        (Some("/old/*"), "azure"),
        (Some("/static/*"), "s3"),
        (None, "both"),
    ]);
    let retargets = towards(&before, &azure()).expect("no conflict");
    assert_eq!(retargets.len(), 3, "{retargets:?}");
    let on = after(&before, &retargets);
    assert_eq!(standing(&on, &azure()), Standing::All);
    assert!(towards(&on, &azure()).expect("no conflict").is_empty());
    assert_eq!(
        after(&on, &back(&on, &[kept(before.clone())]).expect("known")).behaviours[3].target,
        "both"
    );
    // A group whose second origin is the standby's is not the standby.
    let part = standing(&before, &azure());
    assert!(
        matches!(&part, Standing::Part(elsewhere) if elsewhere.contains(&"default (*)".to_owned())),
        "{part:?}"
    );
    assert_eq!(standing(&routes(&[(None, "both")]), &azure()), Standing::None);
}

#[test]
fn an_id_that_another_host_has_is_no_standby() {
    let wrong = Origin {
        domain: "elsewhere.example.com".into(),
        ..azure()
    };
    assert!(matches!(
        towards(&routes(&[(None, "azure")]), &wrong),
        Err(Conflict::Taken { .. })
    ));
    assert_eq!(standing(&routes(&[(None, "azure")]), &wrong), Standing::None);
}

#[test]
fn back_means_what_the_first_record_knew_and_leaves_alone_what_is_elsewhere() {
    let first = routes(&[(Some("/api/*"), "alb"), (None, "both")]);
    // Somebody added one at the primary after the switch, which was switched as well; and one straight at the standby.
    let second = routes(&[(Some("/api/*"), "azure"), (Some("/img/*"), "s3"), (None, "azure")]);
    let now = routes(&[
        (Some("/api/*"), "azure"),
        (Some("/img/*"), "azure"),
        (Some("/new/*"), "azure"),
        (Some("/moved/*"), "s3"),
        (None, "azure"),
    ]);
    let home = after(&now, &back(&now, &[kept(first.clone()), kept(second)]).expect("known"));
    let targets: Vec<&str> = home
        .behaviours
        .iter()
        .map(|behaviour| behaviour.target.as_str())
        .collect();
    assert_eq!(targets, ["alb", "s3", "both", "s3", "both"]);

    assert_eq!(back(&now, &[]), Err(Conflict::Unknown));
    let mut poorer = now;
    poorer.groups.clear();
    assert!(matches!(back(&poorer, &[kept(first)]), Err(Conflict::Gone { target, .. }) if target == "both"));
}

#[test]
fn what_would_be_lost_is_seen_and_what_is_meant_to_change_is_not() {
    let before = "<A xmlns=\"x\"><TargetOriginId>alb</TargetOriginId><Comment>a &amp; b</Comment><Items/><New>1</New><TTL>0</TTL></A>";
    let same = "<?xml version=\"1.0\"?><A><TTL>0</TTL><TargetOriginId>azure</TargetOriginId><Comment>a &amp; b</Comment><New>1</New></A>";
    assert!(lost(before, same).is_empty(), "{:?}", lost(before, same));
    assert_eq!(lost(before, &same.replace("<New>1</New>", "")), ["New"]);
    assert_eq!(lost("<A><T>1</T><T>1</T></A>", "<A><T>1</T></A>"), ["T"]);
}

#[test]
fn a_header_s_value_is_not_kept() {
    let xml =
        "<H><HeaderName>x</HeaderName><HeaderValue>s3cret</HeaderValue></H><HeaderValue>other</HeaderValue><Z>1</Z>";
    let kept = without_secrets(xml);
    assert!(
        !kept.contains("s3cret")
            && !kept.contains("other")
            && kept.contains("<HeaderName>x")
            && kept.ends_with("<Z>1</Z>"),
        "{kept}"
    );
}
