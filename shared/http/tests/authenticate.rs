//! Who is recognised, how soon a change is noticed, and what it costs. Two instances over one store stand for two
//! processes: what the one changes the other has to notice.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use serde_json::json;
use tidegate_http::permission::{AccountRead, RunsRead, WorkflowsRun};
use tidegate_http::{
    AUDIENCE, Api, Authenticator, Caller, Claims, Person, RandomSecret, Scope, TokenVerifier, endpoint, write_api_key,
};
use tidegate_model::{ApiKey, Limits, Member, Permission, Role, Tenant, TenantStatus};
use tidegate_testing::{Answer, ISSUER, Session, TestApp, World};

/// Takes the permission to read
#[utoipa::path(get, path = "/read", responses((status = 200)))]
async fn read(_: Caller<RunsRead>) {}

/// Takes the permission to run
#[utoipa::path(get, path = "/run", responses((status = 200)))]
async fn run(_: Caller<WorkflowsRun>) {}

/// Takes a person
#[utoipa::path(get, path = "/me", responses((status = 200)))]
async fn me(_: Person<AccountRead>) {}

fn serve(world: &World, authenticator: Authenticator) -> TestApp {
    let api = Api::new().route(endpoint!(read)).route(endpoint!(run)).route(endpoint!(me)).with_state(authenticator);
    TestApp::new(world, api)
}

struct Setup {
    world: World,
    /// An instance that knows everything already.
    warm: TestApp,
    owner: Session,
}

async fn setup() -> Setup {
    let world = World::new().await;
    let warm = serve(&world, world.authenticator_of("workflows"));
    let owner = world.session("alex").await;
    Setup { world, warm, owner }
}

/// A service account's key, as its holder has it.
struct Machine {
    member: Member,
    key: ApiKey,
    secret: RandomSecret,
}

impl Machine {
    fn bearer(&self) -> String {
        write_api_key(self.key.id, &self.secret).to_string()
    }
}

impl Setup {
    async fn machine(&self, scopes: &[Permission], expires_in: Option<Duration>) -> Machine {
        let (ids, now, secret) = (&self.world.ids, self.world.clock.now(), RandomSecret::new());
        let account = ids.service_account();
        let member = Member {
            tenant: self.owner.tenant,
            principal: account.into(),
            role: Role::Editor.into(),
            name: "machine".to_owned(),
            email: None,
            created_at: now,
        };
        let key = ApiKey {
            id: ids.api_key(),
            tenant: self.owner.tenant,
            service_account: account,
            name: "key".to_owned(),
            secret_hash: secret.hash(),
            scopes: scopes.iter().copied().collect(),
            created_at: now,
            expires_at: expires_in.map(|after| now + after),
            successor: None,
        };
        self.world.store.tenants().add_member(&member).await.unwrap();
        self.world.store.api_keys().create(&key).await.unwrap();
        Machine { member, key, secret }
    }

    async fn tenant(&self, change: impl FnOnce(&mut Tenant)) {
        let mut tenant = self.world.store.tenants().get(self.owner.tenant).await.unwrap().unwrap();
        change(&mut tenant);
        tenant.revision += 1;
        self.world.store.tenants().replace(&tenant).await.unwrap();
    }

    async fn get(&self, bearer: &str, path: &str) -> u16 {
        get(&self.warm, bearer, path).await.status.as_u16()
    }

    /// Moves the clock to just before the bound, and says what is answered there and at the bound.
    async fn around(&self, bound: u64, bearer: &str, path: &str) -> [u16; 2] {
        self.world.clock.advance(Duration::from_secs(bound) - Duration::from_millis(1));
        let before = self.get(bearer, path).await;
        self.world.clock.advance(Duration::from_millis(1));
        [before, self.get(bearer, path).await]
    }

    fn calls(&self) -> BTreeMap<String, u64> {
        let calls = self.world.embedded.meter.all_calls();
        self.world.embedded.meter.restart(false);
        calls
    }

    fn machine_claims(&self, machine: &Machine) -> Claims {
        let now = self.world.clock.now().as_second();
        Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: machine.member.principal,
            client_id: machine.key.id.to_string(),
            sid: None,
            amr: Vec::new(),
            tenant: Some(machine.key.tenant),
            roles: vec![machine.member.role.clone()],
            scope: None,
            iat: now,
            exp: now + 900,
            jti: "1".to_owned(),
        }
    }
}

async fn get(app: &TestApp, bearer: &str, path: &str) -> Answer {
    let bearer = format!("Bearer {bearer}");
    app.send(None, Method::GET, path, &[("authorization", &bearer)], "").await
}

#[tokio::test]
async fn a_revoked_key_is_noticed_within_five_seconds() {
    let setup = setup().await;
    let machine = setup.machine(&[Permission::RunsRead], None).await;
    let (key, token) = (machine.bearer(), setup.world.sign(&setup.machine_claims(&machine)));
    assert_eq!((setup.get(&key, "/read").await, setup.get(&token, "/read").await), (200, 200));
    setup.world.store.api_keys().delete(machine.key.id).await.unwrap();
    assert_eq!(setup.around(5, &key, "/read").await, [200, 401]);
    assert_eq!(setup.get(&token, "/read").await, 401, "its tokens go with it");
}

#[tokio::test]
async fn a_suspended_tenant_is_noticed_within_five_seconds_and_so_is_its_return() {
    let setup = setup().await;
    let key = setup.machine(&[Permission::RunsRead], None).await.bearer();
    let token = setup.owner.token.clone();
    assert_eq!((setup.get(&key, "/read").await, setup.get(&token, "/read").await), (200, 200));
    setup.tenant(|tenant| tenant.status = TenantStatus::Suspended).await;
    assert_eq!(setup.around(5, &token, "/read").await, [200, 403]);
    assert_eq!(setup.get(&key, "/read").await, 403);
    assert_eq!(get(&setup.warm, &token, "/read").await.text("/code"), "tenant_suspended");
    setup.tenant(|tenant| tenant.status = TenantStatus::Active).await;
    assert_eq!(setup.around(5, &token, "/read").await, [403, 200]);
    setup.tenant(|tenant| tenant.status = TenantStatus::Deleted).await;
    assert_eq!(setup.around(5, &token, "/read").await, [200, 401]);
}

#[tokio::test]
async fn a_changed_role_a_removed_member_and_an_ended_session_are_noticed_within_thirty_seconds() {
    let setup = setup().await;
    let tenants = setup.world.store.tenants();
    let [changed, removed, ended] = [
        setup.world.member(&setup.owner, Role::Editor).await,
        setup.world.member(&setup.owner, Role::Editor).await,
        setup.world.member(&setup.owner, Role::Editor).await,
    ];
    for session in [&changed, &removed, &ended] {
        assert_eq!(setup.get(&session.token, "/run").await, 200);
    }
    let editor = tenants.member(setup.owner.tenant, changed.user.into()).await.unwrap().unwrap();
    let viewer = Member { role: Role::Viewer.into(), ..editor.clone() };
    tenants.replace_members(&[(&editor, &viewer)]).await.unwrap();
    let gone = tenants.member(setup.owner.tenant, removed.user.into()).await.unwrap().unwrap();
    tenants.remove_member(&gone).await.unwrap();
    setup.world.store.sessions().delete(ended.user, &[ended.session]).await.unwrap();
    setup.world.clock.advance(Duration::from_millis(29_999));
    for session in [&changed, &removed, &ended] {
        assert_eq!(setup.get(&session.token, "/run").await, 200, "remembered");
    }
    setup.world.clock.advance(Duration::from_millis(1));
    assert_eq!((setup.get(&changed.token, "/run").await, setup.get(&changed.token, "/read").await), (403, 200));
    assert_eq!((setup.get(&removed.token, "/run").await, setup.get(&ended.token, "/run").await), (401, 401));
    assert_eq!(setup.get(&ended.token, "/me").await, 401);
}

#[tokio::test]
async fn a_warm_request_reads_nothing_and_a_cold_one_each_thing_once() {
    let setup = setup().await;
    let key = setup.machine(&[Permission::RunsRead], None).await.bearer();
    for (what, bearer, cold) in [
        ("a person", setup.owner.token.clone(), &[("Query", 1), ("GetItem", 3)][..]),
        // One read of the key itself, one each of tenant and member; and its use is noted.
        ("a key", key, &[("GetItem", 3), ("PutItem", 1)]),
    ] {
        let app = serve(&setup.world, setup.world.authenticator_of("workflows"));
        setup.calls();
        get(&app, &bearer, "/read").await.expect(200);
        let cold = cold.iter().map(|(operation, calls)| ((*operation).to_owned(), *calls)).collect::<BTreeMap<_, _>>();
        assert_eq!(setup.calls(), cold, "{what}, cold");
        for _ in 0..100 {
            get(&app, &bearer, "/read").await.expect(200);
        }
        assert_eq!(setup.calls(), BTreeMap::new(), "{what}, warm");
    }
}

#[tokio::test]
async fn what_is_not_there_is_remembered_too() {
    let setup = setup().await;
    let unknown = write_api_key(setup.world.ids.api_key(), &RandomSecret::new()).to_string();
    setup.calls();
    for _ in 0..10 {
        assert_eq!(setup.get(&unknown, "/read").await, 401);
    }
    assert_eq!(setup.calls(), BTreeMap::from([("GetItem".to_owned(), 1)]));
    // A wrong secret costs no more than a right one.
    let machine = setup.machine(&[Permission::RunsRead], None).await;
    for _ in 0..10 {
        let guess = write_api_key(machine.key.id, &RandomSecret::new()).to_string();
        assert_eq!(setup.get(&guess, "/read").await, 401);
    }
    assert_eq!(setup.calls().get("GetItem"), Some(&1));
    setup.tenant(|tenant| tenant.status = TenantStatus::Deleted).await;
    setup.world.clock.advance(Duration::from_secs(30));
    setup.get(&setup.owner.token, "/read").await;
    setup.calls();
    for _ in 0..10 {
        assert_eq!(setup.get(&setup.owner.token, "/read").await, 401);
    }
    assert_eq!(setup.calls(), BTreeMap::new());
}

#[tokio::test]
async fn a_key_is_good_for_what_it_is_and_nothing_else() {
    let setup = setup().await;
    let machine = setup.machine(&[Permission::RunsRead, Permission::AuditRead], None).await;
    let other = setup.machine(&[Permission::WorkflowsRun], None).await;
    let ends = setup.machine(&[Permission::RunsRead], Some(Duration::from_secs(60))).await;
    let good = machine.bearer();
    assert_eq!((setup.get(&good, "/read").await, setup.get(&good, "/run").await), (200, 403), "scopes bind");
    assert_eq!(setup.get(&good, "/me").await, 403, "a machine has no account of its own");
    assert_eq!(setup.get(&ends.bearer(), "/read").await, 200);

    let reference = get(&setup.warm, &write_api_key(setup.world.ids.api_key(), &RandomSecret::new()), "/read").await;
    let same = |answer: Answer, what: &str| {
        let body = |answer: &Answer| {
            let mut body = answer.body.clone();
            body["request_id"] = json!(null);
            (answer.status, body, answer.header("www-authenticate").to_owned())
        };
        assert_eq!(body(&answer), body(&reference), "{what}");
    };
    let text = |id, secret: &RandomSecret| write_api_key(id, secret).to_string();
    for (what, key) in [
        ("another secret", text(machine.key.id, &RandomSecret::new())),
        ("another key's secret", text(machine.key.id, &other.secret)),
        ("another id", text(other.key.id, &machine.secret)),
        ("a cut secret", good[..good.len() - 1].to_owned()),
        ("a longer secret", format!("{good}A")),
        ("no secret", good[..good.len() - 43].to_owned()),
        ("the id in upper case", good.replacen("01", "0A", 1)),
        ("two keys", format!("{good} {good}")),
        ("the stored hash", format!("tgk_{}_{}", &machine.key.id.to_string()[4..], machine.key.secret_hash)),
        ("nothing but the prefix", "tgk_".to_owned()),
    ] {
        same(get(&setup.warm, &key, "/read").await, what);
    }
    setup.world.clock.advance(Duration::from_secs(60));
    same(get(&setup.warm, &ends.bearer(), "/read").await, "one that has ended");
    // Its account is gone, whatever became of the key.
    setup.world.store.tenants().remove_member(&machine.member).await.unwrap();
    setup.world.clock.advance(Duration::from_secs(30));
    assert_eq!(setup.get(&good, "/read").await, 401);
}

#[tokio::test]
async fn a_machines_token_is_bound_to_its_key_and_scope() {
    let setup = setup().await;
    let machine = setup.machine(&[Permission::RunsRead, Permission::WorkflowsRun], None).await;
    let other = setup.machine(&[Permission::RunsRead, Permission::WorkflowsRun], None).await;
    let claims = setup.machine_claims(&machine);
    let sign = |change: &dyn Fn(&mut Claims)| {
        let mut claims = claims.clone();
        change(&mut claims);
        setup.world.sign(&claims)
    };
    let narrow = sign(&|claims| claims.scope = Some(Scope([Permission::RunsRead].into())));
    assert_eq!((setup.get(&narrow, "/read").await, setup.get(&narrow, "/run").await), (200, 403));
    let wider = sign(&|claims| claims.scope = Some(Scope(Permission::ALL.iter().copied().collect())));
    assert_eq!((setup.get(&wider, "/read").await, setup.get(&wider, "/me").await), (200, 403));
    let stranger = setup.world.session("sam").await;
    for (what, token) in [
        ("another account's key", sign(&|claims| claims.client_id = other.key.id.to_string())),
        ("no key", sign(&|claims| claims.client_id = tidegate_http::FIRST_PARTY.to_owned())),
        ("a key that isn't", sign(&|claims| claims.client_id = setup.world.ids.api_key().to_string())),
        ("another tenant", sign(&|claims| claims.tenant = Some(stranger.tenant))),
        ("no tenant", sign(&|claims| claims.tenant = None)),
        ("a session", sign(&|claims| claims.sid = Some(setup.owner.session))),
        ("a person", sign(&|claims| claims.sub = setup.owner.user.into())),
    ] {
        assert_eq!(setup.get(&token, "/read").await, 401, "{what}");
    }
    // A person's token with a scope is for no more than that either.
    let owner = Claims {
        sub: setup.owner.user.into(),
        client_id: tidegate_http::FIRST_PARTY.to_owned(),
        sid: Some(setup.owner.session),
        ..claims
    };
    let whole = setup.world.sign(&owner);
    let scoped = setup.world.sign(&Claims { scope: Some(Scope([Permission::RunsRead].into())), ..owner });
    assert_eq!((setup.get(&whole, "/run").await, setup.get(&whole, "/me").await), (200, 200));
    assert_eq!((setup.get(&scoped, "/read").await, setup.get(&scoped, "/run").await), (200, 403));
    assert_eq!(setup.get(&scoped, "/me").await, 403);
}

#[tokio::test]
async fn a_keys_use_is_noted_every_five_minutes_at_most() {
    let setup = setup().await;
    let machine = setup.machine(&[Permission::RunsRead], None).await;
    let key = machine.bearer();
    setup.calls();
    for _ in 0..600 {
        assert_eq!(setup.get(&key, "/read").await, 200);
        setup.world.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(setup.calls().get("PutItem"), Some(&2));
    let noted = setup.world.store.api_keys().last_used(machine.key.tenant, machine.key.id).await.unwrap().unwrap();
    assert_eq!(setup.world.clock.now().duration_since(noted).as_secs(), 300);
}

/// An instance with limits.
fn limited(setup: &Setup, defaults: Limits) -> TestApp {
    let store = setup.world.store_of("workflows");
    let verifier = TokenVerifier::new(store.clone(), ISSUER, setup.world.clock.clone());
    let limiter = setup.world.limiter_of("workflows", defaults);
    serve(&setup.world, Authenticator::new(verifier, store, setup.world.clock.clone(), limiter))
}

fn api(per_second: u32) -> Limits {
    Limits { api_per_second: Some(per_second), ..Limits::default() }
}

/// How many of so many requests get through, one instance after the other.
async fn flood(apps: &[TestApp], bearer: &str, requests: usize) -> usize {
    let mut through = 0;
    for n in 0..requests {
        let answer = get(&apps[n % apps.len()], bearer, "/read").await;
        match answer.status.as_u16() {
            200 => through += 1,
            429 => assert!(!answer.header("retry-after").is_empty()),
            other => panic!("{other}: {}", answer.body),
        }
    }
    through
}

#[tokio::test]
async fn who_asks_too_much_is_told_when_to_come_again() {
    let setup = setup().await;
    let app = limited(&setup, api(2));
    let token = &setup.owner.token;
    let first = get(&app, token, "/read").await.expect(200);
    let rate = |answer: &Answer| {
        ["limit", "remaining", "reset"].map(|name| answer.header(&format!("ratelimit-{name}")).to_owned())
    };
    assert_eq!(rate(&first), ["20", "19", "1"]);
    assert_eq!(flood(std::slice::from_ref(&app), token, 19).await, 19);
    let refused = get(&app, token, "/read").await.expect(429);
    assert_eq!((refused.text("/code"), refused.header("retry-after")), ("rate_limited", "1"));
    assert_eq!(rate(&refused), ["20", "0", "1"]);
    assert_eq!(rate(&get(&app, token, "/run").await.expect(429)), ["20", "0", "1"]);
    setup.world.clock.advance(Duration::from_secs(1));
    assert_eq!(flood(std::slice::from_ref(&app), token, 10).await, 2);
    setup.world.clock.advance(Duration::from_secs(60));
    assert_eq!(flood(&[app], token, 30).await, 20, "whole again, and no more than whole");
}

#[tokio::test]
async fn rate_and_burst_hold_over_two_instances_at_a_tenth_of_a_write_for_each_request() {
    let setup = setup().await;
    for per_second in [10, 50] {
        let stranger = setup.world.session(&format!("sam{per_second}")).await;
        let apps = [limited(&setup, api(per_second)), limited(&setup, api(per_second))];
        let (rate, burst) = (per_second as usize, 10 * per_second as usize);
        assert!((burst..=burst + 1).contains(&flood(&apps, &stranger.token, 2 * burst).await), "the burst");
        // A flood: what comes in goes out, and it costs each instance about a write a second.
        setup.calls();
        let mut through = 0;
        for _ in 0..20 {
            setup.world.clock.advance(Duration::from_secs(1));
            through += flood(&apps, &stranger.token, 4 * rate).await;
        }
        assert!((19 * rate..=20 * rate).contains(&through), "{through} of {}", 20 * rate);
        let writes = setup.calls()["PutItem"];
        assert!(writes <= 2 * 2 * 20, "{writes} writes in 20 s of two instances");

        // Steady load below the limit is never refused, and costs at most a tenth of a write for each request.
        setup.world.clock.advance(Duration::from_secs(20));
        let requests = 60 * rate / 2;
        for _ in 0..requests {
            assert_eq!(flood(&apps[..1], &stranger.token, 1).await, 1);
            setup.world.clock.advance(Duration::from_millis(2_000 / u64::from(per_second)));
        }
        let writes = setup.calls()["PutItem"];
        assert!(writes * 10 <= requests as u64, "{writes} writes for {requests} requests");
    }
}

#[tokio::test]
async fn a_small_limit_is_shared_fairly() {
    let setup = setup().await;
    let apps = [limited(&setup, api(1)), limited(&setup, api(1))];
    // One process that took the whole limit for itself would leave the other one nothing.
    assert_eq!(flood(&apps[..1], &setup.owner.token, 1).await, 1);
    assert_eq!(flood(&apps[1..], &setup.owner.token, 5).await, 5);
    setup.world.clock.advance(Duration::from_secs(20));
    for n in 0..60 {
        assert_eq!(flood(&apps[n % 2..=n % 2], &setup.owner.token, 1).await, 1, "half of the limit");
        setup.world.clock.advance(Duration::from_secs(2));
    }
}

#[tokio::test]
async fn each_key_has_a_limit_and_the_tenant_one_for_all() {
    let setup = setup().await;
    let (one, two) =
        (setup.machine(&[Permission::RunsRead], None).await, setup.machine(&[Permission::RunsRead], None).await);
    let limits = Limits { api_per_second: Some(3), key_per_second: Some(2), ..Limits::default() };
    let apps = [limited(&setup, limits)];
    assert_eq!(flood(&apps, &one.bearer(), 40).await, 20, "the key's limit");
    assert_eq!(flood(&apps, &two.bearer(), 40).await, 10, "what is left of the tenant's");
    assert_eq!(flood(&apps, &setup.owner.token, 10).await, 0);
    let stranger = setup.world.session("sam").await;
    assert_eq!(flood(&apps, &stranger.token, 10).await, 10, "another tenant has its own");
}

#[tokio::test]
async fn a_tenants_own_limits_go_before_the_defaults_and_change_within_five_seconds() {
    let setup = setup().await;
    let apps = [limited(&setup, api(100))];
    let token = &setup.owner.token;
    assert_eq!(flood(&apps, token, 30).await, 30);
    setup.tenant(|tenant| tenant.limits.api_per_second = Some(1)).await;
    setup.world.clock.advance(Duration::from_secs(5));
    // Tokens of the former limit that were leased and not given out yet are good no more.
    assert_eq!(flood(&apps, token, 30).await, 10);
    setup.tenant(|tenant| tenant.limits.api_per_second = Some(200)).await;
    setup.world.clock.advance(Duration::from_secs(5));
    let answer = get(&apps[0], token, "/read").await.expect(200);
    assert_eq!(answer.header("ratelimit-limit"), "2000");
    assert!(flood(&apps, token, 500).await == 500, "a higher limit is there at once");
}

#[tokio::test]
async fn while_the_store_is_throttled_requests_pass() {
    let setup = setup().await;
    let apps = [limited(&setup, api(1))];
    assert_eq!(flood(&apps, &setup.owner.token, 1).await, 1);
    setup.world.embedded.faults.throttle_every(1);
    setup.calls();
    assert_eq!(flood(&apps, &setup.owner.token, 50).await, 50);
    let tried = setup.calls();
    assert!(tried.get("PutItem").is_none_or(|tries| *tries <= 10), "one request tries to count, not each: {tried:?}");
    setup.world.embedded.faults.clear();
    setup.world.clock.advance(Duration::from_secs(1));
    assert!(flood(&apps, &setup.owner.token, 50).await <= 10, "and then it counts again");
}
