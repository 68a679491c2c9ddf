//! Who administers the installation, and that somebody always does.

use serde_json::json;
use tidegate_testing::World;

use crate::{administrator, ids, instance, log, platform};

#[tokio::test]
async fn an_administrator_makes_another_who_may_then_end_the_first_ones() {
    let world = World::new().await;
    let app = instance(&world);
    let (first, second) = (administrator(&world, "first").await, world.session("second").await);
    let path = |session: &tidegate_testing::Session| platform(&format!("administrators/{}", session.user));

    app.get(&first, &path(&second)).await.expect(404);
    let made = app.put(&first, &path(&second), "*", &json!(null)).await.expect(200);
    assert_eq!(made.text("/email"), "second@example.com");
    assert_eq!(made.body, app.get(&first, &path(&second)).await.expect(200).body);
    let listed = app.get(&second, &platform("administrators")).await.expect(200);
    assert_eq!(listed.body["items"].as_array().unwrap().len(), 2);

    // Twice is once.
    world.clock.advance(std::time::Duration::from_secs(1));
    assert_eq!(app.put(&first, &path(&second), "*", &json!(null)).await.expect(200).body, made.body);

    app.delete(&second, &path(&first)).await.expect(204);
    app.delete(&second, &path(&first)).await.expect(404);
    let another = instance(&world);
    another.get(&first, &platform("clients")).await.expect(403);
    let log = log(&app, &second, "").await;
    let entries: Vec<_> = log.iter().map(|entry| (entry["action"].clone(), entry["target"].clone())).collect();
    let (removed, added) = (json!("administrator.remove"), json!("administrator.add"));
    assert_eq!(entries, [(removed, json!(first.user)), (added, json!(second.user))]);
    assert_eq!(log[0]["before"]["email"], "first@example.com");
    assert_eq!(log[0]["actor"]["principal"], json!(second.user));
    assert!(log.iter().all(|entry| entry["tenant"].is_null()));
}

#[tokio::test]
async fn nobody_ends_the_own_administration() {
    let world = World::new().await;
    let app = instance(&world);
    let root = administrator(&world, "root").await;
    for (others, name) in ["second", "third"].into_iter().enumerate() {
        let refused = app.delete(&root, &platform(&format!("administrators/{}", root.user))).await.expect(409);
        assert_eq!(refused.text("/code"), "administrator_required", "with {others} others");
        administrator(&world, name).await;
    }
    assert_eq!(log(&app, &root, "").await.len(), 0);
}

#[tokio::test]
async fn two_who_end_each_others_leave_one() {
    let world = World::new().await;
    let (one, two) = (administrator(&world, "one").await, administrator(&world, "two").await);
    // Each asks an instance that still knows both.
    let (first, second) = (instance(&world), instance(&world));
    first.get(&one, &platform("clients")).await.expect(200);
    second.get(&two, &platform("clients")).await.expect(200);
    first.delete(&one, &platform(&format!("administrators/{}", two.user))).await.expect(204);
    second.delete(&two, &platform(&format!("administrators/{}", one.user))).await.expect(403);
    assert_eq!(world.store.platform().administrators().await.unwrap().len(), 1);
}

/// An instance may know somebody as an administrator for 30 s after the end. In that time nobody comes back by it.
#[tokio::test]
async fn who_was_removed_makes_nobody_an_administrator_any_more() {
    let world = World::new().await;
    let (root, removed) = (administrator(&world, "root").await, administrator(&world, "removed").await);
    let friend = world.session("friend").await;
    let stale = instance(&world);
    stale.get(&removed, &platform("clients")).await.expect(200);
    instance(&world).delete(&root, &platform(&format!("administrators/{}", removed.user))).await.expect(204);
    for user in [friend.user, removed.user] {
        let answer = stale.put(&removed, &platform(&format!("administrators/{user}")), "*", &json!(null)).await;
        answer.expect(403);
    }
    assert_eq!(world.store.platform().administrators().await.unwrap().len(), 1);
    let actions = ids_of_log(&instance(&world), &root).await;
    assert_eq!(actions, ["administrator.remove"]);

    world.clock.advance(tidegate_http::MEMBER_STALE_AFTER);
    stale.get(&removed, &platform("clients")).await.expect(403);
}

async fn ids_of_log(app: &tidegate_testing::TestApp, caller: &tidegate_testing::Session) -> Vec<String> {
    ids(&app.get(caller, &platform("audit")).await.expect(200), "action")
}

#[tokio::test]
async fn only_people_who_are_there_can_be_administrators() {
    let world = World::new().await;
    let app = instance(&world);
    let root = administrator(&world, "root").await;
    for id in [world.ids.user().to_string(), root.tenant.to_string(), "nobody".to_owned()] {
        let path = platform(&format!("administrators/{id}"));
        app.put(&root, &path, "*", &json!(null)).await.expect(404);
        app.delete(&root, &path).await.expect(404);
    }
}

#[tokio::test]
async fn an_administrators_session_that_has_ended_changes_nothing_from_then_on() {
    let world = World::new().await;
    let (root, other) = (administrator(&world, "root").await, world.session("sam").await);
    let app = instance(&world);
    app.get(&root, &platform("administrators")).await.expect(200);
    world.store.sessions().delete(root.user, &[root.session]).await.unwrap();
    let path = platform(&format!("administrators/{}", other.user));
    app.put(&root, &path, "*", &json!(null)).await.expect(401);
    assert_eq!(world.store.platform().administrators().await.unwrap().len(), 1);
}
