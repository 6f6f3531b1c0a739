//! The operator in trouble: people who change their minds, malformed values, a ledger that is taken away, outages of
//! everything around it, refusals, and flags that make no sense.
//!
//! Each test is a world: a control plane, simulated machines, the operator's two programs under their own accounts. Most
//! hold several claims, each on a node of its own and all at the same time; a claim that does not hold is named. Every
//! world ends with the referee's verdict, and with short logs and no request that was forbidden.
//!
//! The operator that this one replaces had these defects; the claims on the right would have found them.
//!
//! | defect | claim |
//! |---|---|
//! | deletes pods of `DaemonSet`s, mirror pods, and its own | `company::what_is_not_to_be_evicted_stays` |
//! | waits 600 ns for a pod to go, and asks every ns | `company::a_drain_waits_for_slow_pods_and_a_refusal_stops_no_other_eviction` |
//! | the first refused deletion ends the drain | the same |
//! | an error of the drain is no reason not to reboot | `refusals::a_drain_that_a_pdb_never_allows_is_given_up_and_the_others_go_first` |
//! | the answer of logind is ignored | `refusals::a_refusal_by_logind_is_told_in_its_own_words` |
//! | uncordons what a person has cordoned | `people::a_persons_cordon_outlives_the_reboot` |
//! | an agent that is restarted uncordons | `company::a_restarted_agent_goes_on_with_the_drain`, `…leaves_a_persons_cordon_alone` |
//! | an agent that is restarted takes the reboot for done | `refusals::a_restarted_agent_calls_again` |
//! | writes whole objects over the writes of others | `company::other_writers_are_no_obstacle_and_lose_nothing` |
//! | a conflict ends the process | the same; every world checks that no agent has ended |
//! | a read that fails is followed by a crash | `outages::refused_with_errors_it_waits_and_goes_on` |
//! | a node whose Ready is Unknown counts as available | `company::a_node_that_is_down_uses_the_quota_up` |
//! | grants by a stale cache | `ledger` (whole), `outages::the_controller_survives_whatever_the_api_server_does` |
//! | two controllers grant one after the other what is there once | `cycle::two` |
//! | a deletion that was not seen as it happened is a crash | `outages::a_node_that_is_replaced_while_nobody_can_see_it_is_another_node` |
//! | what was there before the agent is not seen before the next change | `values::a_node_without_an_agent_waits_and_says_so` |
//! | every account of its namespace has its rights | `company::other_accounts_of_the_namespace_may_do_nothing` |
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod company;
mod flags;
mod ledger;
mod outages;
mod people;
mod refusals;
mod site;
mod values;
mod world;
