"""The controller: keeps what cells report, carries out rollout plans and proposes a release to each cell; without it robots go on."""
