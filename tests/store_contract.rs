//! One suite over every store: memory, directory, retries over faults, and Azure's emulator.

#[path = "store_contract/azure.rs"]
mod azure;
#[path = "store_contract/directory.rs"]
mod directory;
#[path = "store_contract/guarantees.rs"]
mod guarantees;
#[path = "support/http_fault.rs"]
mod http_fault;
#[path = "store_contract/layers.rs"]
mod layers;

/// Runs every guarantee over the store that `$open` makes: `(Store, whatever must live as long)`.
macro_rules! contract {
    ($kind:ident, $open:expr) => {
        contract!(@each $kind, $open,
            appears_whole_and_in_the_order_of_the_commit
            a_taken_name_is_refused
            repeating_ones_own_commit_is_success
            of_concurrent_commits_exactly_one_wins
            discarded_or_unstaged_blocks_cannot_be_committed
            empty_and_many_blocks
            ranges_are_exact_and_pinned
            puts_obey_their_condition
            a_page_is_served_as_was_said
            concurrent_writers_lose_no_update
            deletes_only_that_version
            lists_by_prefix_and_name_with_metadata
            tags_are_kept_apart_from_the_version
            names_and_values_that_are_not_portable_are_refused
            the_clock_does_not_go_back
        );
    };
    (@each $kind:ident, $open:expr, $($guarantee:ident)*) => {
        mod $kind {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $guarantee() {
                    let (store, _alive) = $open.await;
                    crate::guarantees::$guarantee(store).await;
                }
            )*
        }
    };
}

contract!(memory, crate::layers::memory());
contract!(in_a_directory, crate::directory::fresh());
contract!(retrying_over_faults, crate::layers::retrying_over_faults());
contract!(azurite_account_key, crate::azure::account_key());
contract!(azurite_sas, crate::azure::sas());
