"""Seeds of jobs."""

from regnet.conventions import job_seed


def test_a_job_seed_depends_on_the_seed_and_the_name():
    seeds = {
        job_seed(2017, "train", "regnet"),
        job_seed(2018, "train", "regnet"),
        job_seed(2017, "trainregnet"),
        job_seed(2017),
    }
    assert len(seeds) == 4
    assert all(0 <= seed < 2**31 for seed in seeds)
