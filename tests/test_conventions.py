"""Seeds."""

from regnet.conventions import job_seed


def test_a_job_seed_is_a_fact_of_its_name():
    seeds = {
        job_seed(2017, "train", "regnet"),
        job_seed(2018, "train", "regnet"),
        job_seed(2017, "trainregnet"),
        job_seed(2017),
    }
    assert len(seeds) == 4
    assert all(0 <= seed < 2**31 for seed in seeds)
