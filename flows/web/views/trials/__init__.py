"""The page of trials on a robot: what the person there is asked, and what they say."""
